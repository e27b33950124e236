package agent

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"shoal/agent/apply"
	"shoal/agent/follow"
	"shoal/agent/self"
	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
)

// ErrRestart ends Run when another version of the agent's own program is installed than
// the one that runs. The caller closes the agent and starts the program anew.
var ErrRestart = errors.New("the agent has replaced itself")

// recoverItself goes on with an update of this agent: as the new version, which has to
// prove itself, or as the one that was put back. It runs in the owner.
func (a *Agent) recoverItself() {
	for _, app := range a.apps {
		if app.self {
			a.settle(app, Choice{})
			a.start(app, &job{app: app, recovery: true})
		}
	}
}

// unproven says that the installed version of this agent is not confirmed yet, or nil.
func (a *Agent) unproven(app *app) error {
	if !app.self {
		return nil
	}
	unconfirmed, err := a.engine.Unconfirmed(app.program.Target)
	if err != nil || !unconfirmed {
		return err
	}
	return fault.New(fault.OK, "this version of the agent has to prove itself")
}

// goOnInNext ends Run, so that the next process goes on with the update of this agent.
func (a *Agent) goOnInNext(app *app, r apply.Result) {
	if r.State == apply.Confirming {
		a.log.Info("restarting into the new version", "app", app.cfg.Name, "version", r.To.Version)
		a.setState(app, manifest.StateConfirming, fault.New(fault.OK, "restarting into %s", r.To.Version))
	} else {
		a.log.Warn("restarting into the version before", "app", app.cfg.Name, "version", r.From.Version)
		a.setState(app, manifest.StateReverted, fault.New(fault.Reverted, "restarting into %s, which was put back", r.From.Version))
	}
	select {
	case a.ending <- struct{}{}:
	default:
	}
}

// keepGuard keeps what is installed as the guard, unless it has still to prove itself.
func (a *Agent) keepGuard(app *app, r apply.Result, err error) {
	proven := r.State == apply.Confirmed || r.State == apply.Reverted || r.State == apply.Idle && err == nil
	if !app.self || !proven {
		return
	}
	if err := self.KeepGuard(a.cfg.Self.Program.Path()); err != nil {
		a.log.Warn("without a guard, a version of the agent that does not start is not put back", "err", err)
	}
}

// Fitness is what SelfCheck found.
type Fitness struct {
	Version     string `json:"version"`
	Platform    string `json:"platform"`
	Fleet       string `json:"fleet"` // sha256:...
	RootVersion int64  `json:"root_version"`
	Apps        int    `json:"apps"`
}

const (
	readTries = 10 // of a state that a running agent may be writing
	readPause = 100 * time.Millisecond
)

// SelfCheck says whether this build can take over from the agent that runs on cfg's
// state: whether it understands the configuration, what is trusted, and what the engine
// remembers of every app. It takes no lock and changes nothing.
func SelfCheck(ctx context.Context, cfg Config) (*Fitness, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return nil, err
	}
	pin, err := state.ReadPin(cfg.JoinFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := checkPin(cfg, pin); err != nil {
		return nil, err
	}
	member, err := cfg.member("")
	if err != nil {
		return nil, err
	}
	if _, err := openSources(cfg, member); err != nil {
		return nil, err
	}
	engine, err := apply.New(apply.Options{StateDir: filepath.Join(cfg.StateDir, "apply")})
	if err != nil {
		return nil, err
	}
	f := follow.New(follow.Config{
		Store: state.Reading(cfg.StateDir, cfg.AnchorFile), Pin: pin,
		Options: manifest.Options{Clock: cfg.Clock, Build: cfg.Build, TimeFloor: cfg.Time == "floor", AgentVersion: cfg.Version},
	})
	trust, err := f.Reread(true)
	for try := 1; err != nil && try < readTries && ctx.Err() == nil; try++ {
		time.Sleep(readPause)
		trust, err = f.Reread(true)
	}
	if err != nil {
		return nil, err
	}
	for _, app := range cfg.Apps {
		program, err := app.program()
		if err != nil {
			return nil, err
		}
		if _, err := engine.Failed(program.Target, [32]byte{}, 0); err != nil {
			return nil, err
		}
	}
	return &Fitness{
		Version: cfg.Version, Platform: cfg.Platform.String(), Fleet: trust.Repo().Prefixed(),
		RootVersion: trust.RootVersion(), Apps: len(cfg.Apps),
	}, nil
}
