package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"shoal/cmd/shoal/internal/words"
	"shoal/internal/fault"
)

// OfferNoPassphrase adds the other way out for commands that have it.
func OfferNoPassphrase(err error) error {
	var e *fault.Error
	if errors.As(err, &e) && e.Code == fault.Usage {
		e.Do("or leave the key unprotected: --no-passphrase")
	}
	return err
}

const maxPassphrase = 4 << 10 // a passphrase is a line; this is generous

// PassphraseFlag gives a command that opens private keys its --passphrase-file.
func (c *CLI) PassphraseFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.passphraseFile, "passphrase-file", "", "`FILE` with the passphrase of the keys, instead of asking")
}

// Passphrase answers for the passphrase of what, as keys.Open asks: from
// --passphrase-file, SHOAL_PASSPHRASE_FILE or the configured file, else from the
// terminal. It is never taken from an argument or from the environment itself.
func (c *CLI) Passphrase(ctx context.Context, what string) ([]byte, error) {
	if p, ok, err := c.passphraseFromFile(); ok || err != nil {
		return p, err
	}
	return c.askPassphrase(ctx, fmt.Sprintf("Passphrase for %s: ", what))
}

// NewPassphrase asks for the passphrase of a key about to be made: from a file as
// Passphrase does, else twice from the terminal. Empty means no passphrase.
func (c *CLI) NewPassphrase(ctx context.Context, what string) ([]byte, error) {
	if p, ok, err := c.passphraseFromFile(); ok || err != nil {
		return p, err
	}
	return c.AskNewPassphrase(ctx, what)
}

// AskNewPassphrase asks for the passphrase of what twice, on the terminal. Empty means none.
func (c *CLI) AskNewPassphrase(ctx context.Context, what string) ([]byte, error) {
	first, err := c.askPassphrase(ctx, fmt.Sprintf("New passphrase for %s (empty for none): ", what))
	if err != nil {
		return nil, err
	}
	if len(first) == 0 {
		return nil, nil
	}
	second, err := c.askPassphrase(ctx, "The same again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, Usagef("the two passphrases differ")
	}
	return first, nil
}

func (c *CLI) passphraseFromFile() ([]byte, bool, error) {
	path := c.passphraseFile
	if path == "" {
		path = c.Getenv("SHOAL_PASSPHRASE_FILE")
	}
	if path == "" {
		path = c.PassphraseDefault
	}
	if path == "" {
		return nil, false, nil
	}
	p, err := c.ReadPassphraseFile(path)
	return p, true, err
}

// ReadPassphraseFile reads the one line of a passphrase file.
func (c *CLI) ReadPassphraseFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Config, "reading the passphrase file: %w", err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		c.Warn("passphrase file %q can be read by others (mode %04o)", path, fi.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPassphrase+1))
	if err != nil {
		return nil, fmt.Errorf("reading passphrase file %q: %w", path, err)
	}
	if len(b) > maxPassphrase {
		return nil, fault.New(fault.Config, "passphrase file %q is longer than %d bytes", path, maxPassphrase)
	}
	b = bytes.TrimSuffix(b, []byte("\n"))
	return bytes.TrimSuffix(b, []byte("\r")), nil
}

func (c *CLI) askPassphrase(ctx context.Context, prompt string) ([]byte, error) {
	in, ok := c.Std.In.(*os.File)
	if !ok || !c.InTTY || !c.ErrTTY {
		return nil, Usagef("cannot ask for a passphrase without a terminal").
			Do("name a file that holds it: --passphrase-file FILE or SHOAL_PASSPHRASE_FILE")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	state, err := term.GetState(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("preparing the terminal: %w", err)
	}
	fmt.Fprint(c.Std.Err, words.Printable(prompt))
	type answer struct {
		p   []byte
		err error
	}
	answered := make(chan answer, 1)
	go func() { // ends with the process when interrupted: a terminal read cannot be
		p, err := term.ReadPassword(int(in.Fd()))
		answered <- answer{p, err}
	}()
	select {
	case a := <-answered:
		fmt.Fprintln(c.Std.Err)
		if a.err != nil {
			return nil, fmt.Errorf("reading the passphrase: %w", a.err)
		}
		return a.p, nil
	case <-ctx.Done():
		term.Restore(int(in.Fd()), state)
		fmt.Fprintln(c.Std.Err)
		return nil, ctx.Err()
	}
}
