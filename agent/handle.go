package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"

	"shoal/agent/apply"
	"shoal/agent/state"
	"shoal/internal/control"
	"shoal/internal/fault"
	"shoal/internal/turn"
)

// Handle is an agent to command: the running one, or one made for the occasion.
type Handle interface {
	Check(ctx context.Context, apps []string) (*Checks, error)
	Update(ctx context.Context, apps []string, c Choice, wait bool, progress func(Progress)) ([]Updated, error)
	Import(ctx context.Context, path string, progress func(Progress)) ([]Updated, error)
	Wish(ctx context.Context, apps []string, w Wish) ([]Wished, error)
	Revert(ctx context.Context, app, version string) (*Reverted, error)
	Stored(ctx context.Context) ([]Stored, error)
	Drop(ctx context.Context, which []string) (*Dropped, error)
	// Report returns a signed report for a file, with what happened since the last one that
	// is in a file, which Reported says of it.
	Report(ctx context.Context) (json.RawMessage, error)
	Reported(ctx context.Context, report json.RawMessage) error
	// Serving reports whether the agent goes on when the command ends.
	Serving() bool
	Close() error
}

// Connect returns the agent that runs on cfg's state directory, or, when none does, one
// that works on it under its lock until it is closed.
func Connect(ctx context.Context, cfg Config) (Handle, error) {
	return turn.Command(ctx, func() (Handle, error) {
		client, err := control.Dial(ctx, cfg.StateDir, "agent")
		if err == nil {
			return remote{client}, nil
		}
		if !errors.Is(err, control.ErrNotRunning) {
			return nil, err
		}
		a, err := Open(ctx, cfg)
		if err != nil {
			return nil, err
		}
		// No command leaves a recovery half way: every try counts.
		if err := a.recovered(ctx); err != nil {
			return nil, errors.Join(err, a.Close())
		}
		return a, nil
	})
}

// Serving implements [Handle].
func (a *Agent) Serving() bool { return a.serving.Load() }

// remote is a running agent.
type remote struct{ c *control.Client }

func (r remote) Serving() bool { return true }
func (r remote) Close() error  { return nil }

func (r remote) Check(ctx context.Context, apps []string) (*Checks, error) {
	var checks Checks
	err := r.c.Do(ctx, "check", CheckRequest{apps}, nil, &checks)
	return &checks, err
}

func (r remote) Update(ctx context.Context, apps []string, c Choice, wait bool, progress func(Progress)) ([]Updated, error) {
	var updated []Updated
	err := r.c.Do(ctx, "update", UpdateRequest{apps, wait, c}, relayed(progress), &updated)
	return updated, err
}

func (r remote) Import(ctx context.Context, path string, progress func(Progress)) ([]Updated, error) {
	var updated []Updated
	err := r.c.Do(ctx, "import", ImportRequest{path}, relayed(progress), &updated)
	return updated, err
}

// relayed takes up what a relay of the running agent sends.
func relayed(progress func(Progress)) func(json.RawMessage) {
	return func(raw json.RawMessage) {
		var p Progress
		if progress != nil && json.Unmarshal(raw, &p) == nil {
			progress(p)
		}
	}
}

func (r remote) Wish(ctx context.Context, apps []string, w Wish) ([]Wished, error) {
	var wished []Wished
	err := r.c.Do(ctx, "wish", WishRequest{apps, w}, nil, &wished)
	return wished, err
}

func (r remote) Revert(ctx context.Context, app, version string) (*Reverted, error) {
	var reverted Reverted
	return &reverted, r.c.Do(ctx, "revert", RevertRequest{app, version}, nil, &reverted)
}

func (r remote) Stored(ctx context.Context) ([]Stored, error) {
	var stored []Stored
	err := r.c.Do(ctx, "cache", struct{}{}, nil, &stored)
	return stored, err
}

func (r remote) Drop(ctx context.Context, which []string) (*Dropped, error) {
	var dropped Dropped
	return &dropped, r.c.Do(ctx, "cache-rm", DropRequest{which}, nil, &dropped)
}

func (r remote) Report(ctx context.Context) (json.RawMessage, error) {
	var env json.RawMessage
	return env, r.c.Do(ctx, "report", struct{}{}, nil, &env)
}

func (r remote) Reported(ctx context.Context, report json.RawMessage) error {
	return r.c.Do(ctx, "reported", report, nil, new(struct{}))
}

// CurrentStatus is the running agent's status, else how things were when one last ran.
func CurrentStatus(ctx context.Context, cfg Config) (*Status, error) {
	return turn.Command(ctx, func() (*Status, error) { return currentStatus(ctx, cfg) })
}

func currentStatus(ctx context.Context, cfg Config) (*Status, error) {
	client, err := control.Dial(ctx, cfg.StateDir, "agent")
	if err == nil {
		var s Status
		return &s, client.Do(ctx, "status", nil, nil, &s)
	}
	if !errors.Is(err, control.ErrNotRunning) {
		return nil, err
	}
	s, err := ReadStatus(cfg.StateDir)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return s, coded(err, "reading the status")
	}
	// Nothing has run here yet: look once, as far as that goes without the network.
	cfg.Sources, cfg.Peers = Sources{}, nil
	a, err := Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	if err := a.recovered(ctx); err != nil {
		return nil, err
	}
	if err := a.do(ctx, func() {
		for _, app := range a.apps {
			a.settle(app, Choice{})
		}
	}); err != nil {
		return nil, err
	}
	return a.Status(), nil
}

// Log returns the finished updates of an app, oldest first, of a running agent too.
func Log(cfg Config, name string) ([]apply.Record, error) {
	engine, err := apply.New(apply.Options{StateDir: filepath.Join(cfg.StateDir, "apply"), Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	for _, app := range cfg.Apps {
		if app.Name != name {
			continue
		}
		program, err := app.program()
		if err != nil {
			return nil, err
		}
		records, err := engine.History(program.Target)
		return records, coded(err, "reading the log")
	}
	return nil, fault.New(fault.Usage, "this machine keeps no app %q", name)
}

// Joined reports whether cfg's machine belongs to a fleet.
func (c Config) Joined() bool {
	if _, err := state.ReadPin(c.JoinFile); err == nil {
		return true
	}
	return state.Exists(c.StateDir, c.AnchorFile)
}
