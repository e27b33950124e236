package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"shoal/internal/fault"
)

// start serves commands in dir until the test ends.
func start(t *testing.T, dir string, commands map[string]Command) *http.Server {
	t.Helper()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: Handler(commands)}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return srv
}

func dial(t *testing.T, dir string) *Client {
	t.Helper()
	c, err := Dial(t.Context(), dir, "agent")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCommandsAndTheirEnds(t *testing.T) {
	dir := t.TempDir()
	start(t, dir, map[string]Command{
		"greet": func(_ context.Context, req json.RawMessage, progress func(any)) (any, error) {
			var name string
			if err := json.Unmarshal(req, &name); err != nil {
				return nil, err
			}
			progress(1)
			progress(2)
			return "hello " + name, nil
		},
		"fail": func(context.Context, json.RawMessage, func(any)) (any, error) {
			return nil, fault.New(fault.Held, "not now").Line("why").Do("wait").Fact("wave", "two")
		},
		"wait": func(ctx context.Context, _ json.RawMessage, progress func(any)) (any, error) {
			progress("waiting")
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	c := dial(t, dir)
	var got string
	var seen []string
	err := c.Do(t.Context(), "greet", "you", func(p json.RawMessage) { seen = append(seen, string(p)) }, &got)
	if err != nil || got != "hello you" || strings.Join(seen, " ") != "1 2" {
		t.Errorf("greet: %q, progress %q, %v", got, seen, err)
	}

	var e *fault.Error
	if err := c.Do(t.Context(), "fail", nil, nil, &got); !errors.As(err, &e) || !errors.Is(err, fault.Held) {
		t.Fatalf("fail: %v, want held", err)
	}
	if e.Message != "not now" || e.Detail[0] != "why" || e.Next[0] != "wait" || e.Facts["wave"] != "two" {
		t.Errorf("the error lost something on its way: %+v", e)
	}

	if err := c.Do(t.Context(), "unheard-of", nil, nil, &got); !errors.Is(err, fault.IO) {
		t.Errorf("unknown command: %v, want io", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	if err := c.Do(ctx, "wait", nil, func(json.RawMessage) { cancel() }, &got); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who leaves: %v, want context.Canceled", err)
	}
}

// An agent that dies in the middle must not look like one that has finished.
func TestAgentThatDiesIsAnError(t *testing.T) {
	dir := t.TempDir()
	var srv *http.Server
	ready := make(chan struct{})
	srv = start(t, dir, map[string]Command{
		"die": func(ctx context.Context, _ json.RawMessage, progress func(any)) (any, error) {
			progress("about to")
			<-ready
			srv.Close()
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	close(ready)
	if err := dial(t, dir).Do(t.Context(), "die", nil, nil, new(string)); !errors.Is(err, fault.IO) {
		t.Errorf("Do = %v, want io", err)
	}
}

func TestNobodyListens(t *testing.T) {
	dir := t.TempDir()
	if _, err := Dial(t.Context(), dir, "agent"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v, want ErrNotRunning", err)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	l.(*listener).Listener.Close() // as a killed agent leaves it
	if _, err := os.Lstat(filepath.Join(dir, socket)); err != nil {
		t.Fatalf("the dead socket should be there: %v", err)
	}
	if _, err := Dial(t.Context(), dir, "agent"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a dead socket: %v, want ErrNotRunning", err)
	}
	start(t, dir, nil)
	dial(t, dir)
}

func TestSocketIsItsOwnersAlone(t *testing.T) {
	dir := t.TempDir()
	start(t, dir, nil)
	fi, err := os.Lstat(filepath.Join(dir, socket))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", fi.Mode(), err)
	}
}

func TestLongDirectory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has short names for long directories")
	}
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	start(t, dir, map[string]Command{
		"ok": func(context.Context, json.RawMessage, func(any)) (any, error) { return 7, nil },
	})
	var n int
	if err := dial(t, dir).Do(t.Context(), "ok", nil, nil, &n); err != nil || n != 7 {
		t.Errorf("Do = %d, %v", n, err)
	}
	l, err := Listen(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := l.(*listener).path
	l.Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a closed listener leaves its socket: %v", err)
	}
}

func TestOversizedRequestIsRefused(t *testing.T) {
	dir := t.TempDir()
	start(t, dir, map[string]Command{
		"any": func(context.Context, json.RawMessage, func(any)) (any, error) {
			return nil, fmt.Errorf("must not be called")
		},
	})
	err := dial(t, dir).Do(t.Context(), "any", strings.Repeat("x", maxRequest+1), nil, new(string))
	if err == nil || strings.Contains(err.Error(), "must not be called") {
		t.Errorf("Do = %v, want a refusal before the command", err)
	}
}
