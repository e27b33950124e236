package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// RunProgram is the program that the demo keeps up to date: a small HTTP server that
// reports its version, which it reads from the end of the executable at path. It
// writes its address to out as "listening on HOST:PORT", serves until ctx ends, and,
// when its release is one that crashes, returns an error right away.
func RunProgram(ctx context.Context, path, listen string, out io.Writer) error {
	t, err := ReadTrailer(path)
	if err != nil {
		return fmt.Errorf("starting the demo's program: %w", err)
	}
	if t.Crash {
		return fmt.Errorf("%s %s cannot start: this release is broken on purpose", t.App, t.Version)
	}
	l, err := listenAgain(ctx, listen)
	if err != nil {
		return fmt.Errorf("starting %s %s: %w", t.App, t.Version, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s\n", t.App, t.Version)
	})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, t.Version) })
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	fmt.Fprintf(out, "listening on %s\n", l.Addr())
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// listenAgain listens on an address that the predecessor may not have left yet.
func listenAgain(ctx context.Context, addr string) (net.Listener, error) {
	var last error
	for range 50 {
		l, err := net.Listen("tcp", addr)
		if err == nil {
			return l, nil
		}
		last = err
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil, last
}

// Control asks the demo's supervisor at base, a URL, to do action for a machine's
// program: "start", "stop", "restart" or "status". It is what the agents run as their
// service commands. For status it writes the process id, and is an error when the
// program does not run.
func Control(ctx context.Context, action, base string, out io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/"+action, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("asking the demo to %s: %w", action, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking the demo to %s: %s", action, body)
	}
	_, err = out.Write(body)
	return err
}
