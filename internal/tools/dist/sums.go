package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	sumsName = "SHA256SUMS"
	// What ssh-keygen's own manual signs files under.
	namespace = "file"
)

// sums writes the hashes of all files, and returns their names.
func (r *release) sums() ([]string, error) {
	all, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	var text strings.Builder
	for _, e := range all {
		if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), sumsName) {
			continue
		}
		content, err := os.ReadFile(filepath.Join(r.dir, e.Name()))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&text, "%x  %s\n", sha256.Sum256(content), e.Name())
		names = append(names, e.Name())
	}
	return names, os.WriteFile(filepath.Join(r.dir, sumsName), []byte(text.String()), 0o644)
}

// sign makes an SSHSIG of the hashes. ssh-keygen does, since it asks for a passphrase and
// knows ssh-agents and tokens.
func (r *release) sign(out io.Writer, key string) error {
	sums := filepath.Join(r.dir, sumsName)
	cmd := exec.Command("ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", key, sums)
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("signing %s with %q: %w", sumsName, key, err)
	}
	fmt.Fprintf(out, "%s.sig is its signature; anybody checks it:\n", sumsName)
	fmt.Fprintf(out, "  ssh-keygen -Y verify -f allowed_signers -I NAME -n %s -s %s.sig < %[2]s\n", namespace, sumsName)
	return nil
}
