package fleet

import (
	"context"
	"encoding/json"
	"errors"

	"shoal/internal/control"
	"shoal/internal/fault"
	"shoal/internal/turn"
	"shoal/manifest"
)

// Fleet is what people do with a store: their own, or that of the shoal serve that is
// running on it. The methods are those of [Store].
type Fleet interface {
	Summary(ctx context.Context) (*Summary, error)
	Agents(ctx context.Context, q Query) (*Page, error)
	Find(ctx context.Context, name string) (*Agent, error)
	Events(ctx context.Context, q EventQuery) (*EventPage, error)
	Approve(ctx context.Context, names []string, pending bool) ([]*Agent, error)
	Label(ctx context.Context, name string, notes []manifest.Label) (*Agent, error)
	Forget(ctx context.Context, names []string) ([]*Agent, error)
	Import(ctx context.Context, envs [][]byte) (*Imported, error)
	Close() error
}

// Connect returns the store of cfg: of the process that serves on it, or else opened
// here until it is closed. For another command, and a serve that does not listen yet, it
// waits a few seconds.
func Connect(ctx context.Context, cfg Config) (Fleet, error) {
	return turn.Command(ctx, func() (Fleet, error) {
		client, err := control.Dial(ctx, cfg.Dir, "publisher")
		if err == nil {
			return remote{client}, nil
		}
		if !errors.Is(err, control.ErrNotRunning) {
			return nil, err
		}
		s, err := Open(cfg)
		if err != nil {
			return nil, err // and no Fleet, not even one of nothing
		}
		return s, nil
	})
}

// namesRequest names machines.
type namesRequest struct {
	Names   []string         `json:"names,omitempty"`
	Pending bool             `json:"pending,omitempty"`
	Notes   []manifest.Label `json:"notes,omitempty"`
}

// name is the one that is meant where one is.
func (r *namesRequest) name() string {
	if len(r.Names) != 1 {
		return ""
	}
	return r.Names[0]
}

// Commands are what the control socket of a process that has the store offers for it.
func (s *Store) Commands() map[string]control.Command {
	return map[string]control.Command{
		"fleet-summary": command(func(ctx context.Context, _ struct{}) (any, error) { return s.Summary(ctx) }),
		"fleet-agents":  command(func(ctx context.Context, q Query) (any, error) { return s.Agents(ctx, q) }),
		"fleet-events":  command(func(ctx context.Context, q EventQuery) (any, error) { return s.Events(ctx, q) }),
		"fleet-find":    command(func(ctx context.Context, r namesRequest) (any, error) { return s.Find(ctx, r.name()) }),
		"fleet-approve": command(func(ctx context.Context, r namesRequest) (any, error) { return s.Approve(ctx, r.Names, r.Pending) }),
		"fleet-label":   command(func(ctx context.Context, r namesRequest) (any, error) { return s.Label(ctx, r.name(), r.Notes) }),
		"fleet-forget":  command(func(ctx context.Context, r namesRequest) (any, error) { return s.Forget(ctx, r.Names) }),
		"fleet-import": command(func(ctx context.Context, raw []json.RawMessage) (any, error) {
			envs := make([][]byte, len(raw))
			for i := range raw {
				envs[i] = raw[i]
			}
			return s.Import(ctx, envs)
		}),
	}
}

// command is f for the control socket.
func command[Request any](f func(context.Context, Request) (any, error)) control.Command {
	return func(ctx context.Context, raw json.RawMessage, _ func(any)) (any, error) {
		var r Request
		if err := json.Unmarshal(raw, &r); err != nil {
			return nil, fault.New(fault.Usage, "reading the request: %w", err)
		}
		v, err := f(ctx, r)
		if err != nil {
			return nil, err
		}
		return v, nil
	}
}

// remote is the store of a running process.
type remote struct{ c *control.Client }

func (r remote) Close() error { return nil }

// ask has a running process do a command.
func ask[Result any](ctx context.Context, r remote, name string, request any) (Result, error) {
	var res Result
	err := r.c.Do(ctx, "fleet-"+name, request, nil, &res)
	return res, err
}

func (r remote) Summary(ctx context.Context) (*Summary, error) {
	return ask[*Summary](ctx, r, "summary", struct{}{})
}

func (r remote) Agents(ctx context.Context, q Query) (*Page, error) {
	return ask[*Page](ctx, r, "agents", q)
}

func (r remote) Find(ctx context.Context, name string) (*Agent, error) {
	return ask[*Agent](ctx, r, "find", namesRequest{Names: []string{name}})
}

func (r remote) Events(ctx context.Context, q EventQuery) (*EventPage, error) {
	return ask[*EventPage](ctx, r, "events", q)
}

func (r remote) Approve(ctx context.Context, names []string, pending bool) ([]*Agent, error) {
	return ask[[]*Agent](ctx, r, "approve", namesRequest{Names: names, Pending: pending})
}

func (r remote) Label(ctx context.Context, name string, notes []manifest.Label) (*Agent, error) {
	return ask[*Agent](ctx, r, "label", namesRequest{Names: []string{name}, Notes: notes})
}

func (r remote) Forget(ctx context.Context, names []string) ([]*Agent, error) {
	return ask[[]*Agent](ctx, r, "forget", namesRequest{Names: names})
}

// importBatch bounds what goes over the socket in one request, in bytes.
const importBatch = 32 << 10

func (r remote) Import(ctx context.Context, envs [][]byte) (*Imported, error) {
	sum := &Imported{Refused: []fault.Code{}}
	for len(envs) > 0 {
		var batch []json.RawMessage
		for size := 0; len(envs) > 0 && (len(batch) == 0 || size+len(envs[0]) <= importBatch); envs = envs[1:] {
			size += len(envs[0])
			batch = append(batch, envs[0])
		}
		one, err := ask[*Imported](ctx, r, "import", batch)
		if err != nil {
			return sum, err
		}
		sum.Taken += one.Taken
		sum.Unapproved += one.Unapproved
		sum.Old += one.Old
		sum.Refused = append(sum.Refused, one.Refused...)
	}
	return sum, nil
}
