package publishing

import (
	"context"
	"errors"
	"io/fs"

	"shoal/cmd/shoal/internal/cli"
	"shoal/internal/fault"
	"shoal/keys"
)

// Signers opens the keys that were named, or the configured ones. A configured key
// file that is not on this machine is somebody else's to sign with.
func Signers(ctx context.Context, c *cli.CLI, named, configured []string) ([]keys.Signer, error) {
	var signers []keys.Signer
	refs := named
	if len(named) == 0 {
		refs = configured
	}
	for _, ref := range refs {
		s, err := keys.Open(ctx, ref, c.Passphrase)
		if len(named) == 0 && errors.Is(err, fs.ErrNotExist) {
			c.Say("%s is not here, and does not sign", ref)
			continue
		}
		if err != nil {
			return nil, cli.KeyError(ref, err)
		}
		signers = append(signers, s)
	}
	return signers, nil
}

// Beacon opens the key that signs beacons: the one that was named, or the configured
// one. It is nil where there is none; a configured file that is not on this machine is
// where shoal serve is.
func Beacon(ctx context.Context, c *cli.CLI, named, configured string) (keys.Signer, error) {
	ref := named
	if ref == "" {
		ref = configured
	}
	if ref == "" {
		return nil, nil
	}
	s, err := keys.Open(ctx, ref, c.Passphrase)
	if err == nil {
		return s, nil
	}
	if named == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	err = cli.KeyError(ref, err)
	var e *fault.Error
	if errors.As(err, &e) {
		e.Line("It is the beacon key, which opens gates and holds rollouts.")
	}
	return nil, err
}
