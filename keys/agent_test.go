package keys_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"shoal/keys"
	"shoal/keys/keystest"
)

// socketPath is in a directory of its own directly under the temporary one: a socket's
// path may have about 100 bytes, which a test's name can use up.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shoal")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "agent")
}

// startAgent runs a real ssh-agent for the length of the test.
func startAgent(t *testing.T) {
	t.Helper()
	path := socketPath(t)
	cmd := exec.Command(openssh(t, "ssh-agent"), "-D", "-a", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	// It prints how to reach it once it listens.
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("ssh-agent does not start: %v", err)
	}
	t.Setenv("SSH_AUTH_SOCK", path)
}

func TestAgent(t *testing.T) {
	startAgent(t)
	path, pub := newKeyFile(t, "")
	run(t, nil, "ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", path+"-rsa")
	run(t, nil, "ssh-add", "-q", path+"-rsa")
	run(t, nil, "ssh-add", "-q", path)

	for _, ref := range []string{"agent:" + string(pub.ID()), "agent:" + path + ".pub"} {
		s := mustOpen(t, ref, nil)
		checkSigner(t, s, pub)
		if s.Public().Comment() != "alice" {
			t.Errorf("%s: comment %q", ref, s.Public().Comment())
		}
		if err := keys.WritePrivate(filepath.Join(t.TempDir(), "copy"), s, nil); err == nil {
			t.Errorf("%s: the agent's key was written to a file", ref)
		}
	}

	other := filepath.Join(t.TempDir(), "other.pub")
	if err := keys.WritePublic(other, keystest.New(t, "other").Public()); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"agent:SHA256:" + strings.Repeat("A", 43), "agent:SHA256:", "agent:" + other} {
		if _, err := keys.Open(context.Background(), ref, nil); !errors.Is(err, keys.ErrNotInAgent) {
			t.Errorf("%s: error %v, want ErrNotInAgent", ref, err)
		}
	}

	s := mustOpen(t, "agent:"+path+".pub", nil)
	run(t, nil, "ssh-add", "-q", "-d", path)
	if _, err := s.Sign(context.Background(), namespace, msg); err == nil {
		t.Error("signed after the key was taken out of the agent")
	}
}

func TestNoAgent(t *testing.T) {
	id := "agent:" + string(keystest.New(t, "alice").Public().ID())
	for name, socket := range map[string]string{"not-set": "", "nobody-listens": socketPath(t)} {
		t.Setenv("SSH_AUTH_SOCK", socket)
		if _, err := keys.Open(context.Background(), id, nil); !errors.Is(err, keys.ErrNoAgent) {
			t.Errorf("%s: error %v, want ErrNoAgent", name, err)
		}
	}
}

// serveAgent puts an agent of our making behind SSH_AUTH_SOCK.
func serveAgent(t *testing.T, a agent.Agent) {
	t.Helper()
	l, err := net.Listen("unix", socketPath(t))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			agent.ServeAgent(a, conn) // one at a time, until the other side hangs up
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	t.Setenv("SSH_AUTH_SOCK", l.Addr().String())
}

// oneKeyAgent holds one key and answers requests to sign with what sign returns.
type oneKeyAgent struct {
	agent.Agent // what is not used here
	pub         keys.PublicKey
	sign        func(toBeSigned []byte) (*ssh.Signature, error)
}

func (a oneKeyAgent) List() ([]*agent.Key, error) {
	fields := strings.Fields(a.pub.String())
	blob, err := base64.StdEncoding.DecodeString(fields[1])
	return []*agent.Key{{Format: fields[0], Blob: blob, Comment: "in agent"}}, err
}

func (a oneKeyAgent) Sign(_ ssh.PublicKey, b []byte) (*ssh.Signature, error) { return a.sign(b) }

func TestAgentWithFIDO2Key(t *testing.T) {
	token := keystest.NewSK(t, "alice")
	serveAgent(t, oneKeyAgent{pub: token.Public(), sign: func(b []byte) (*ssh.Signature, error) {
		// What the token signs for these bytes, taken out of its SSHSIG again.
		if want := keys.ToBeSigned(namespace, msg); string(b) != string(want) {
			return nil, errors.New("asked to sign other bytes")
		}
		whole, err := token.Sign(context.Background(), namespace, msg)
		if err != nil {
			return nil, err
		}
		var raw ssh.Signature
		return &raw, ssh.Unmarshal(takeApart(t, whole).Signature, &raw)
	}})
	s := mustOpen(t, "agent:"+string(token.Public().ID()), nil)
	checkSigner(t, s, token.Public())

	token.Flags = 0
	if _, err := s.Sign(context.Background(), namespace, msg); err == nil || !strings.Contains(err.Error(), "touching") {
		t.Errorf("untouched: error %v", err)
	}
}

func TestAgentThatLies(t *testing.T) {
	pub := keystest.New(t, "alice").Public()
	serveAgent(t, oneKeyAgent{pub: pub, sign: func(b []byte) (*ssh.Signature, error) {
		return &ssh.Signature{Format: plain, Blob: ed25519.Sign(keystestPrivate(), b)}, nil
	}})
	s := mustOpen(t, "agent:"+string(pub.ID()), nil)
	if sig, err := s.Sign(context.Background(), namespace, msg); err == nil {
		t.Errorf("its signature %x is accepted", sig)
	}
}

func TestWaitingForAnAgentEndsWithTheContext(t *testing.T) {
	pub := keystest.New(t, "alice").Public()
	ctx, cancel := context.WithCancel(context.Background())
	release := make(chan struct{})
	serveAgent(t, oneKeyAgent{pub: pub, sign: func([]byte) (*ssh.Signature, error) {
		cancel() // while the token waits to be touched
		<-release
		return &ssh.Signature{Format: plain}, nil
	}})
	defer close(release)
	s := mustOpen(t, "agent:"+string(pub.ID()), nil)
	if _, err := s.Sign(ctx, namespace, msg); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}
