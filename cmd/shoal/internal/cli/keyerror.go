package cli

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/swarm/fleet"
)

// KeyError gives what is wrong with a key a code and a next step; nil stays nil.
func KeyError(ref string, err error) error {
	var coded *fault.Error
	switch {
	case err == nil, errors.As(err, &coded), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrExist):
		return fault.New(fault.Usage, "%w", err).Line("Keys are never overwritten.").Do("choose another file")
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "%w", err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, keys.ErrExposed), errors.Is(err, fleet.ErrExposed):
		return fault.New(fault.Permission, "%w", err)
	case errors.Is(err, keys.ErrPassphraseNeeded), errors.Is(err, keys.ErrWrongPassphrase):
		return fault.New(fault.Usage, "%w", err).Do("--passphrase-file FILE")
	case errors.Is(err, keys.ErrNoAgent), errors.Is(err, keys.ErrNotInAgent):
		return fault.New(fault.NotFound, "%w", err).Do("ssh-add -l")
	}
	if strings.Contains(ref, "PRIVATE KEY") {
		return fault.New(fault.Usage, "%w", err) // a key itself, given for its name: it is not repeated
	}
	return fault.New(fault.Usage, "key %q: %w", ref, err)
}
