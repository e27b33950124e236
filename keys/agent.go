package keys

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// openAgent finds a key in the ssh-agent by fingerprint or by public key file.
func openAgent(ctx context.Context, name string) (*signer, error) {
	id := ID(name)
	if !strings.HasPrefix(name, "SHA256:") {
		pub, err := ReadPublic(name)
		if err != nil {
			return nil, err
		}
		id = pub.ID()
	}
	var held []*agent.Key
	err := withAgent(ctx, func(a agent.Agent) (err error) {
		held, err = a.List()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the keys of the ssh-agent: %w", err)
	}
	for _, h := range held {
		pub, err := parseWireKey(h.Blob)
		if err != nil || pub.ID() != id {
			continue // agents hold keys of types that are no use here
		}
		if named, err := pub.withComment(h.Comment); err == nil {
			pub = named
		}
		return &signer{pub: pub, raw: func(ctx context.Context, toBeSigned []byte) (ssh.Signature, error) {
			return agentSign(ctx, pub, toBeSigned)
		}}, nil
	}
	return nil, fmt.Errorf("%w: %s is not among the %d it shows (ssh-add -l lists them; a locked agent shows none)", ErrNotInAgent, id, len(held))
}

func agentSign(ctx context.Context, pub PublicKey, toBeSigned []byte) (ssh.Signature, error) {
	var answer *ssh.Signature
	err := withAgent(ctx, func(a agent.Agent) (err error) {
		answer, err = a.Sign(&agent.Key{Format: pub.algo, Blob: pub.wire()}, toBeSigned)
		return err
	})
	if err != nil {
		return ssh.Signature{}, err
	}
	return *answer, nil
}

// withAgent talks to the agent over a connection of its own, which ends with ctx: a
// FIDO2 token may wait for a touch for ever.
func withAgent(ctx context.Context, talk func(agent.Agent) error) error {
	path := os.Getenv("SSH_AUTH_SOCK")
	if path == "" {
		return fmt.Errorf("%w: SSH_AUTH_SOCK is not set", ErrNoAgent)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoAgent, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := talk(agent.NewClient(conn)); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	return nil
}
