package access

import (
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"shoal/internal/fault"
)

const (
	maxTokens  = 1 << 20 // bytes of the file; a line is about 60
	minToken   = 32      // letters of a token
	maxName    = 64
	lookAgain  = time.Second // at the file
	tokenChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
)

// token is one line of the file. The token itself is not kept.
type token struct {
	role Role
	name string
}

// tokens are those of a file.
type tokens struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex // guards what follows
	all     map[[sha256.Size]byte]token
	size    int64
	mtime   time.Time
	looked  time.Time
	trouble string // with the file, told once
}

func openTokens(path string, log *slog.Logger) (*tokens, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	t := &tokens{path: path, log: log}
	if path == "" {
		return t, nil
	}
	return t, t.read()
}

// find returns the token with that hash.
func (t *tokens) find(sum [sha256.Size]byte) (token, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.path != "" && time.Since(t.looked) > lookAgain {
		switch err := t.read(); {
		case err == nil:
			t.trouble = ""
		case err.Error() != t.trouble:
			t.trouble = err.Error()
			t.log.Error("nobody is let in by a token", "err", err)
			fallthrough
		default:
			t.all = nil // a file that nobody understands lets nobody in
		}
	}
	found, ok := t.all[sum]
	return found, ok
}

// read reads the file if it has changed. The caller holds mu, or is alone.
func (t *tokens) read() error {
	t.looked = time.Now()
	fi, err := os.Stat(t.path) // asked before opening: a pipe would block
	if err != nil {
		return t.bad(err)
	}
	if t.all != nil && fi.Size() == t.size && fi.ModTime().Equal(t.mtime) {
		return nil
	}
	if !fi.Mode().IsRegular() {
		return t.bad(errors.New("it is not a regular file"))
	}
	if fi.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return fault.New(fault.Config, "ui.tokens_file: others than its owner can read %q", t.path).
			Do("chmod 600 %s", t.path).Fact("key", "ui.tokens_file")
	}
	f, err := os.Open(t.path)
	if err != nil {
		return t.bad(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTokens+1))
	if err != nil {
		return t.bad(err)
	}
	all, err := parseTokens(b)
	if err != nil {
		return t.bad(err)
	}
	t.all, t.size, t.mtime = all, fi.Size(), fi.ModTime()
	return nil
}

func (t *tokens) bad(err error) error {
	e := fault.New(fault.Config, "ui.tokens_file: reading %q: %w", t.path, err).
		Line("Without it nobody is let in by a token.").Fact("key", "ui.tokens_file")
	if errors.Is(err, fs.ErrNotExist) {
		e.Do("make it: umask 077; echo operator me $(openssl rand -hex 32) > %s", t.path)
	}
	return e
}

// parseTokens reads the text of a file of tokens. An error never has a token in it.
func parseTokens(text []byte) (map[[sha256.Size]byte]token, error) {
	if len(text) > maxTokens {
		return nil, fault.New(fault.TooLarge, "it is larger than %d bytes", maxTokens)
	}
	all := map[[sha256.Size]byte]token{}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fault.New(fault.Malformed, "line %d is not ROLE NAME TOKEN", n)
		}
		role := Viewer
		switch f[0] {
		case "viewer":
		case "operator":
			role = Operator
		default:
			return nil, fault.New(fault.Malformed, "line %d: the role is neither viewer nor operator", n)
		}
		if len(f[1]) > maxName {
			return nil, fault.New(fault.Malformed, "line %d: the name has more than %d bytes", n, maxName)
		}
		if len(f[2]) < minToken || strings.Trim(f[2], tokenChars) != "" {
			return nil, fault.New(fault.Malformed, "line %d: a token is %d or more letters, digits, - and _", n, minToken)
		}
		sum := sha256.Sum256([]byte(f[2]))
		if _, twice := all[sum]; twice {
			return nil, fault.New(fault.Malformed, "line %d: the token of another line", n)
		}
		all[sum] = token{role, f[1]}
	}
	return all, nil
}
