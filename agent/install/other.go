package install

import (
	"errors"
	"runtime"

	"github.com/kardianos/service"

	"shoal/internal/fault"
)

// manager is what launchd and the service manager of Windows have in common, as
// kardianos/service has it.
type manager interface {
	Install() error
	Uninstall() error
	Start() error
	Stop() error
	Status() (service.Status, error)
	Platform() string
}

// system returns this machine's own.
func system(o Options) (manager, error) {
	s, err := service.New(nothing{}, managed(o))
	if err != nil {
		return nil, fault.New(fault.IO, "finding the service manager of %s: %w", runtime.GOOS, err)
	}
	return s, nil
}

// managed is the service as those managers take it: started at boot, and started again
// whenever it ends, so that an agent that has replaced itself comes back.
func managed(o Options) *service.Config {
	c := &service.Config{
		Name: "shoal-agent", DisplayName: "shoal agent", Description: "shoal software update agent",
		Executable: o.Program,
		Option: service.KeyValue{
			"OnFailure": "restart", "OnFailureDelayDuration": "3s", "OnFailureResetPeriod": 300, // Windows
			"KeepAlive": true, "RunAtLoad": true, // launchd
		},
	}
	if o.Config != "" {
		c.Arguments = append(c.Arguments, "--config", o.Config)
	}
	if o.State != "" {
		c.Arguments = append(c.Arguments, "--state", o.State)
	}
	c.Arguments = append(c.Arguments, "agent", "run", "--supervised")
	return c
}

// nothing is the program of a service that is only installed from here.
type nothing struct{}

func (nothing) Start(service.Service) error { return nil }
func (nothing) Stop(service.Service) error  { return nil }

func installAt(m manager, now bool) (*Result, error) {
	res := &Result{Manager: m.Platform()}
	st, err := m.Status()
	switch {
	case errors.Is(err, service.ErrNotInstalled):
		if err := m.Install(); err != nil {
			return nil, failed(err)
		}
		res.Changed = true
	case err != nil:
		return nil, failed(err)
	}
	if now && st != service.StatusRunning {
		if err := m.Start(); err != nil {
			return nil, failed(err)
		}
		res.Changed = true
	}
	return res, nil
}

func uninstallAt(m manager) (*Result, error) {
	res := &Result{Manager: m.Platform()}
	st, err := m.Status()
	switch {
	case errors.Is(err, service.ErrNotInstalled):
		return res, nil
	case err != nil:
		return nil, failed(err)
	}
	if st == service.StatusRunning {
		if err := m.Stop(); err != nil {
			return nil, failed(err)
		}
	}
	if err := m.Uninstall(); err != nil {
		return nil, failed(err)
	}
	res.Changed = true
	return res, nil
}
