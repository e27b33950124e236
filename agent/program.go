package agent

import (
	"time"

	"shoal/agent/apply"
	"shoal/agent/health"
	"shoal/agent/self"
	"shoal/agent/service"
	"shoal/internal/fault"
)

// program is a as the engine that replaces programs wants it.
func (a AppConfig) program() (apply.Program, error) {
	bad := func(err error) error { return fault.New(fault.Config, "app %q: %w", a.Name, err) }
	svc, err := a.Service.service()
	if err != nil {
		return apply.Program{}, bad(err)
	}
	check, err := a.Health.check(svc)
	if err != nil {
		return apply.Program{}, bad(err)
	}
	return apply.Program{
		Target: apply.Target{
			App: a.Name, Path: a.Target, Kind: a.Kind, Keep: a.Keep, Swap: a.Swap,
			AllowInstall: !a.RefuseInstall, AllowInsecureDir: a.AllowInsecureDir,
			Installer: apply.Installer{
				Command: a.Installer.Command, Revert: a.Installer.Revert, Success: a.Installer.Success,
				RetryLater: a.Installer.RetryLater, Idempotent: a.Installer.Idempotent, Timeout: a.Installer.Timeout,
			},
		},
		Service: svc, Health: check, RequireHealthy: a.Health.Require,
		Hooks: apply.Hooks{Pre: a.Hooks.Pre, Post: a.Hooks.Post, OnRevert: a.Hooks.OnRevert, Timeout: a.Hooks.Timeout},
	}, nil
}

// leavesItself reports whether a, being the agent itself, leaves to it what no other
// can decide.
func (a AppConfig) leavesItself() bool {
	s := a.Service
	return s.Systemd+s.Launchd+s.Windows == "" && !s.hasCommand() &&
		(a.Health.Type == "" || a.Health.Type == "none") && (a.Swap == "" || a.Swap == apply.SwapRename)
}

// ownProgram is p, which is the agent itself, as the engine wants it.
func (c Config) ownProgram(p apply.Program, gate *self.Gate) apply.Program {
	p.Self, p.Service, p.Health = true, c.Self.Program.Service(), gate
	p.Trial = self.Trial(c.Self.Check)
	p.ConfirmWithin = gate.Within() + time.Minute
	p.Target.AllowInstall = false
	return p
}

func (s ServiceConfig) service() (service.Service, error) {
	given := 0
	for _, is := range []bool{s.Systemd != "", s.Launchd != "", s.Windows != "", s.hasCommand()} {
		if is {
			given++
		}
	}
	switch {
	case given > 1:
		return nil, fault.New(fault.Config, "service: systemd, launchd, windows and command exclude each other")
	case s.Systemd != "":
		return service.Systemd(s.Systemd)
	case s.Launchd != "":
		return service.Launchd(s.Launchd)
	case s.Windows != "":
		return service.Windows(s.Windows)
	case s.hasCommand():
		c := s.Command
		return service.Command(service.CommandConfig{Start: c.Start, Stop: c.Stop, Restart: c.Restart, Status: c.Status})
	}
	return service.None{}, nil
}

func (s ServiceConfig) hasCommand() bool {
	return len(s.Command.Start)+len(s.Command.Stop)+len(s.Command.Restart)+len(s.Command.Status) > 0
}

const (
	// stayUp is how long a program must stay up where the configuration does not say.
	stayUp = 10 * time.Second
	// comingUp is how long it may take until it is up, where nothing at all is said of health:
	// one that crashes is put back within half a minute, the look at the old one included.
	comingUp = 5 * time.Second
)

func (h HealthConfig) check(svc service.Service) (health.Check, error) {
	p := health.Policy{Successes: h.Successes, Interval: h.Interval, Timeout: h.Timeout}
	need := func(set bool, what string) error {
		if !set {
			return fault.New(fault.Config, "health: type %q needs %q", h.Type, what)
		}
		return nil
	}
	kind := h.Type
	if _, none := svc.(service.None); kind == "" && !none {
		// Whoever says what runs the program wants it to run: one that crashes at once
		// must not count as healthy for want of another check.
		kind = "stay-up"
		if p.Timeout == 0 && (h.Interval == 0 || h.Successes == 0) {
			p.Timeout = stayUp + comingUp
		}
	}
	switch kind {
	case "", "none":
		return health.None{}, nil
	case "command":
		if err := need(len(h.Command) > 0, "command"); err != nil {
			return nil, err
		}
		return health.Command(h.Command, p)
	case "http":
		if err := need(h.URL != "", "url"); err != nil {
			return nil, err
		}
		return health.HTTP(h.URL, p)
	case "tcp":
		if err := need(h.Address != "", "address"); err != nil {
			return nil, err
		}
		return health.TCP(h.Address, p)
	case "stay-up":
		if _, none := svc.(service.None); none {
			return nil, fault.New(fault.Config, `health: type "stay-up" needs a service to look at`)
		}
		d := stayUp
		if h.Interval > 0 && h.Successes > 0 {
			d = time.Duration(h.Successes) * h.Interval
		}
		return health.StayUp(svc, d, p)
	}
	return nil, fault.New(fault.Config, "health: type %q is none of none, stay-up, command, http, tcp", h.Type)
}
