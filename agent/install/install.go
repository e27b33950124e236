// Package install has a machine's service manager run the agent, and stop doing so.
//
// Doing it again changes nothing that is as it should be, and nothing that somebody else
// wrote is replaced or removed. On Linux that is systemd, with units of our own that
// give the service no more of the machine than its programs' directories; elsewhere the
// manager the system has.
package install

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"shoal/agent/internal/command"
	"shoal/agent/self"
	"shoal/internal/durable"
	"shoal/internal/fault"
)

// Options say how the agent is to run. Paths are absolute.
type Options struct {
	Program string // the agent
	Config  string // its --config; empty for the system's place
	State   string // its --state; empty for the system's place
	// FleetKey is the file with the fleet's key; empty in an open fleet.
	FleetKey string
	// Targets are what it has to be able to replace.
	Targets []string
	// Self says that one of the targets is the agent itself.
	Self bool

	// UnitDir is where systemd finds units; empty means /etc/systemd/system.
	UnitDir string

	temporary []string // instead of the system's directories for temporary files, in tests
}

// Result is what was done.
type Result struct {
	Manager string   `json:"manager"` // systemd, launchd or windows
	Changed bool     `json:"changed"` // false: it was so already
	Files   []string `json:"files,omitempty"`
}

const (
	systemdDir   = "/etc/systemd/system"
	systemdBoot  = "/run/systemd/system" // there when systemd is what runs
	reloadTime   = time.Minute
	startingTime = 3 * time.Minute // beyond the unit's own limits
)

// Text returns what Install would write, for a person to read, where it writes text.
func Text(o Options) ([]Unit, error) {
	if runtime.GOOS != "linux" {
		return nil, fault.New(fault.Usage, "the service manager of %s takes no text", runtime.GOOS)
	}
	if err := checkSelf(o); err != nil {
		return nil, err
	}
	return Units(o)
}

// Install makes the service, to run from the next boot on and, with now, from now on.
func Install(ctx context.Context, o Options, now bool) (*Result, error) {
	if runtime.GOOS != "linux" {
		m, err := system(o)
		if err != nil {
			return nil, err
		}
		return installAt(m, now)
	}
	return o.installUnits(ctx, now)
}

// Uninstall stops the service and removes it. Configuration, state and programs stay.
func Uninstall(ctx context.Context, o Options) (*Result, error) {
	if runtime.GOOS != "linux" {
		m, err := system(o)
		if err != nil {
			return nil, err
		}
		return uninstallAt(m)
	}
	return o.uninstallUnits(ctx)
}

func (o Options) installUnits(ctx context.Context, now bool) (*Result, error) {
	units, err := Text(o)
	if err != nil {
		return nil, err
	}
	dir, err := o.unitDir()
	if err != nil {
		return nil, err
	}
	res := &Result{Manager: "systemd"}
	var write []Unit
	for _, u := range units {
		path := filepath.Join(dir, u.Name)
		_, text, err := ours(path)
		if err != nil {
			return nil, err
		}
		if res.Files = append(res.Files, path); text != u.Text {
			write = append(write, u)
		}
	}
	if o.Self {
		if err := self.KeepGuard(o.Program); err != nil {
			return nil, failed(err)
		}
	}
	for _, u := range write {
		if err := durable.WriteFile(filepath.Join(dir, u.Name), []byte(u.Text), 0o644); err != nil {
			return nil, failed(err)
		}
		res.Changed = true
	}
	// Also when nothing changed: the last time may have ended in between.
	calls := [][]string{{"daemon-reload"}, {"enable", agentUnit}}
	switch {
	case now && res.Changed:
		calls = append(calls, []string{"restart", agentUnit})
	case now:
		calls = append(calls, []string{"start", agentUnit})
	}
	return res, systemctl(ctx, calls...)
}

func (o Options) uninstallUnits(ctx context.Context) (*Result, error) {
	dir, err := o.unitDir()
	if err != nil {
		return nil, err
	}
	res := &Result{Manager: "systemd"}
	for _, name := range []string{agentUnit, guardUnit} {
		path := filepath.Join(dir, name)
		there, _, err := ours(path)
		if err != nil {
			return nil, err
		}
		if there {
			res.Files, res.Changed = append(res.Files, path), true
		}
	}
	if !res.Changed {
		return res, nil
	}
	if err := systemctl(ctx, []string{"disable", "--now", agentUnit}); err != nil {
		return nil, err
	}
	for _, path := range res.Files {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, failed(err)
		}
	}
	if err := durable.SyncDir(dir); err != nil {
		return nil, failed(err)
	}
	// Without a unit for the guard, the file of its name beside the agent is somebody else's.
	if slices.Contains(res.Files, filepath.Join(dir, guardUnit)) {
		if err := self.DropGuard(o.Program); err != nil {
			return nil, failed(err)
		}
	}
	return res, systemctl(ctx, []string{"daemon-reload"})
}

func (o Options) unitDir() (string, error) {
	if o.UnitDir != "" {
		return o.UnitDir, nil
	}
	if _, err := os.Stat(systemdBoot); err != nil {
		return "", fault.New(fault.Config, "systemd does not run on this machine").
			Line("Nothing was changed.").
			Do("have whatever starts services here run: shoal agent run --supervised").
			Do("see the unit all the same: shoal agent install --dry-run")
	}
	return systemdDir, nil
}

func systemctl(ctx context.Context, calls ...[]string) error {
	for _, args := range calls {
		limit := reloadTime
		if args[0] == "start" || args[0] == "restart" || args[0] == "disable" {
			limit = startingTime
		}
		if _, err := command.Run(ctx, command.Command{Argv: append([]string{"systemctl"}, args...), Timeout: limit}); err != nil {
			return fault.New(fault.IO, "%w", err).Do("systemctl status %s", agentUnit)
		}
	}
	return nil
}

// failed gives an error of a file its code.
func failed(err error) error {
	code := fault.IO
	if errors.Is(err, fs.ErrPermission) {
		code = fault.Permission
	}
	e := fault.New(code, "%w", err)
	if code == fault.Permission {
		e.Do("run it as root")
	}
	return e
}
