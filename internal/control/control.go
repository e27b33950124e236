// Package control carries commands to the process that is running on a directory: the
// agent on its state, or a publisher that serves on its store.
//
// It is HTTP over a Unix socket in that directory, which only its owner may open: who
// can connect may command the process, nobody else can. A command is one POST; its
// answer is a stream of JSON lines, any number of "progress" and then one "result" or
// one "error", so that a person sees the work go on and a broken connection is never
// taken for success.
package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"shoal/internal/fault"
)

const (
	socket      = "control.sock"
	cradle      = ".control" // where the socket is until it has its name
	maxRequest  = 256 << 10
	maxLine     = 64 << 20 // a hundred machines with much to say are 10 MiB
	dialTimeout = 5 * time.Second
)

// ErrNotRunning says that nobody listens in a directory.
var ErrNotRunning = errors.New("nobody is running there")

// Listen opens the socket in dir. The caller holds dir's lock: a socket that is
// already there belongs to a process that died, and is replaced.
func Listen(dir string) (net.Listener, error) {
	path := filepath.Join(dir, socket)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing the old control socket: %w", err)
	}
	if runtime.GOOS == "windows" { // who may open it is inherited from dir
		l, err := bind(dir)
		if err != nil {
			return nil, fmt.Errorf("opening the control socket: %w", err)
		}
		return &listener{l, path}, nil
	}
	// A socket is made with what the umask leaves, and anybody could connect until its mode is
	// changed. So it is made where nobody else can go, and moved when it is its owner's alone.
	private := filepath.Join(dir, cradle)
	if err := os.RemoveAll(private); err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	if err := os.Mkdir(private, 0o700); err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	defer os.RemoveAll(private)
	l, err := bind(private)
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	from := filepath.Join(private, socket)
	if err := errors.Join(os.Chmod(from, 0o600), os.Rename(from, path)); err != nil {
		l.Close()
		return nil, fmt.Errorf("protecting the control socket: %w", err)
	}
	return &listener{l, path}, nil
}

// bind listens on a socket in dir.
func bind(dir string) (*net.UnixListener, error) {
	short, done, err := shorten(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(short, socket)})
	if err == nil {
		l.SetUnlinkOnClose(false) // it has another name by then
	}
	return l, err
}

// listener removes its file when it is closed.
type listener struct {
	net.Listener
	path string
}

func (l *listener) Close() error {
	os.Remove(l.path)
	return l.Listener.Close()
}

// Command is one thing the process can be told. It may call progress any number of
// times before it returns; the context ends when the caller goes away.
type Command func(ctx context.Context, request json.RawMessage, progress func(any)) (any, error)

// Handler serves commands by name, each at POST /v1/NAME.
func Handler(commands map[string]Command) http.Handler {
	mux := http.NewServeMux()
	for name, command := range commands {
		mux.HandleFunc("POST /v1/"+name, func(w http.ResponseWriter, r *http.Request) { answer(w, r, command) })
	}
	return mux
}

func answer(w http.ResponseWriter, r *http.Request, command Command) {
	request, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, "request too large", http.StatusRequestEntityTooLarge)
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	rc := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	send := func(l line) {
		if enc.Encode(l) == nil {
			rc.Flush()
		}
	}
	result, err := command(r.Context(), request, func(v any) { send(line{Progress: encode(v)}) })
	if err != nil {
		send(line{Error: NewFailure(err)})
		return
	}
	send(line{Result: encode(result)})
}

func encode(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil || v == nil {
		return json.RawMessage("{}")
	}
	return b
}

// line is one line of an answer; exactly one member is set.
type line struct {
	Progress json.RawMessage `json:"progress,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	Error    *Failure        `json:"error,omitempty"`
}

// Failure is a fault.Error as it crosses the socket.
type Failure struct {
	Code    fault.Code     `json:"code"`
	Message string         `json:"message"`
	Lines   []string       `json:"lines,omitempty"`
	Detail  map[string]any `json:"detail,omitempty"`
	Next    []string       `json:"next,omitempty"`
}

// NewFailure returns err as a Failure; nil for nil.
func NewFailure(err error) *Failure {
	if err == nil {
		return nil
	}
	f := &Failure{Code: fault.CodeOf(err), Message: err.Error()}
	var e *fault.Error
	if errors.As(err, &e) {
		f.Lines, f.Next, f.Detail = e.Detail, e.Next, e.Facts
	}
	return f
}

// Err returns f as the *fault.Error it was; nil for nil.
func (f *Failure) Err() error {
	if f == nil {
		return nil
	}
	return &fault.Error{Code: f.Code, Message: f.Message, Detail: f.Lines, Next: f.Next, Facts: f.Detail}
}

// Client talks to one running process.
type Client struct {
	http *http.Client
	who  string // what it is called in messages
}

// Dial returns a client of the process running in dir, or [ErrNotRunning]. who is what
// messages call it: "agent", "publisher".
func Dial(ctx context.Context, dir, who string) (*Client, error) {
	dial := func(ctx context.Context) (net.Conn, error) {
		short, done, err := shorten(dir)
		if err != nil {
			return nil, err
		}
		defer done()
		d := net.Dialer{Timeout: dialTimeout}
		return d.DialContext(ctx, "unix", filepath.Join(short, socket))
	}
	conn, err := dial(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNotRunning
	case errors.Is(err, fs.ErrPermission):
		return nil, fault.New(fault.Permission, "this user may not command the %s: %w", who, err).
			Line("Its control socket %q belongs to the user the %s runs as.", filepath.Join(dir, socket), who).
			Do("run the command as that user, or with sudo")
	case err != nil:
		return nil, fmt.Errorf("connecting to the %s: %w", who, err)
	}
	conn.Close()
	return &Client{who: who, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}}, nil
}

// Do tells the process one thing and waits for its end. Every progress line goes to
// progress, which may be nil; the result is decoded into result.
func (c *Client) Do(ctx context.Context, name string, request any, progress func(json.RawMessage), result any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encoding the request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://process/v1/"+name, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return c.lost(ctx, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fault.New(fault.IO, "the running %s does not know %q (HTTP %d)", c.who, name, res.StatusCode).
			Do("restart the %s: it may be older than this command", c.who)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("reading the %s's answer: %w", c.who, err)
		}
		switch {
		case l.Error != nil:
			return l.Error.Err()
		case l.Result != nil:
			if err := json.Unmarshal(l.Result, result); err != nil {
				return fmt.Errorf("reading the %s's answer: %w", c.who, err)
			}
			return nil
		case l.Progress != nil && progress != nil:
			progress(l.Progress)
		}
	}
	return c.lost(ctx, lines.Err())
}

// lost says that the process went away before it was done.
func (c *Client) lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fault.New(fault.IO, "the %s went away before it was done: %w", c.who, err).
		Line("It picks up where it was when it starts again.")
}
