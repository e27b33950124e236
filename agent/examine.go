package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/dustin/go-humanize"

	"shoal/agent/cache"
	"shoal/agent/state"
	"shoal/internal/control"
	"shoal/internal/fault"
)

// Finding is one thing that was looked at.
type Finding struct {
	Check string     `json:"check"` // membership, clock, state, disk, limits, target
	App   string     `json:"app,omitempty"`
	Code  fault.Code `json:"code"` // ok, or what is wrong
	Text  string     `json:"text"`
	Lines []string   `json:"lines,omitempty"`
	Fix   []string   `json:"fix,omitempty"` // always there when something is wrong
}

// Examined is what an examination found.
type Examined struct {
	// Inside says that the running agent looked, within the limits of its service;
	// otherwise it was this process, which may have other rights.
	Inside   bool      `json:"inside"`
	Findings []Finding `json:"findings"`
}

// Examine looks at what an agent needs of its machine: time, disk, rights and limits. It
// asks the running agent to look, where there is one, and changes nothing.
func Examine(ctx context.Context, cfg Config) (*Examined, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return nil, err
	}
	client, err := control.Dial(ctx, cfg.StateDir, "agent")
	if err == nil {
		var x Examined
		return &x, client.Do(ctx, "examine", struct{}{}, nil, &x)
	}
	if errors.Is(err, fault.Permission) {
		return nil, err // one is running, and is not this user's to ask
	}
	return &Examined{Findings: cfg.examine()}, nil
}

func (c Config) examine() []Finding {
	all := []Finding{
		finding("membership", "", c.membership),
		finding("clock", "", c.clock),
		finding("state", "", c.stateRights),
		finding("disk", "", c.room),
		finding("limits", "", openFiles),
	}
	for _, app := range c.Apps {
		all = append(all, finding("target", app.Name, func() (string, error) {
			_, err := checkTarget(c, app)
			if errors.Is(err, fault.Locked) {
				return app.Target + " is being replaced at this moment", nil
			}
			return app.Target + " can be replaced", err
		}))
	}
	return all
}

// finding is how look went.
func finding(check, app string, look func() (string, error)) Finding {
	text, err := look()
	f := Finding{Check: check, App: app, Code: fault.OK, Text: text}
	if err != nil {
		f.Code, f.Text = fault.CodeOf(err), err.Error()
		var e *fault.Error
		if errors.As(err, &e) {
			f.Lines, f.Fix = e.Detail, e.Next
		}
		if len(f.Fix) == 0 {
			f.Fix = []string{"shoal explain " + string(f.Code)}
		}
	}
	return f
}

func (c Config) membership() (string, error) {
	pin, err := state.ReadPin(c.JoinFile)
	if errors.Is(err, os.ErrNotExist) {
		pin = nil
	} else if err != nil {
		return "", err
	}
	if err := checkPin(c, pin); err != nil {
		return "", err
	}
	if pin == nil {
		return "its pin is gone; the state knows the fleet", nil
	}
	return "pinned to " + pin.Repo.String(), nil
}

func (c Config) clock() (string, error) {
	now := c.Clock().UTC()
	says := "it says " + now.Format(time.RFC3339)
	if now.Before(c.Build) {
		return "", fault.New(fault.ClockBehind, "the clock is behind: %s", says).
			Line("This program was built at %s, so it must be later than that.", c.Build.UTC().Format(time.RFC3339)).
			Line("Shoal takes the time as no earlier than that; windows and holds follow the clock.").
			Do("set the clock, and have it kept: timedatectl set-ntp true").
			Do("where no clock can be trusted: time: floor in the configuration")
	}
	if synced, known := clockSynced(); known && !synced && c.Time != "floor" {
		return says + "; nothing keeps it right (timedatectl set-ntp true)", nil
	} else if known && synced {
		says += "; it is kept by the network"
	}
	return says, nil
}

func (c Config) stateRights() (string, error) {
	dir := there(c.StateDir)
	f, err := os.CreateTemp(dir, ".shoal-examine-*")
	if err != nil {
		return "", fault.New(fault.Permission, "cannot write the state: %w", err).
			Do("run as the owner of %s, or choose another with --state DIR", dir)
	}
	f.Close()
	return c.StateDir + " can be written", os.Remove(f.Name())
}

func (c Config) room() (string, error) {
	dir := there(c.CacheDir)
	free, err := cache.Free(dir)
	if err != nil {
		return "", err
	}
	size := func(n int64) string { return humanize.Bytes(uint64(max(n, 0))) }
	if free <= c.Disk.Reserve {
		return "", fault.New(fault.NoSpace, "nothing can be downloaded: %s has %s free", dir, size(free)).
			Line("%s of it stay free by disk.reserve.", size(c.Disk.Reserve)).
			Do("shoal agent cache rm --unused").
			Do("free some space there, or set disk.reserve lower")
	}
	return fmt.Sprintf("%s has %s for downloads", dir, size(free-c.Disk.Reserve)), nil
}

// minFiles is how many files an agent opens at most without anything being wrong:
// connections, pieces and documents.
const minFiles = 1024

func openFiles() (string, error) {
	limit, known := fileLimit()
	if !known {
		return "no limits to look at here", nil
	}
	if limit < minFiles {
		return "", fault.New(fault.Config, "only %d files may be open at once", limit).
			Line("With many neighbours more are needed.").
			Do("LimitNOFILE=%d in the agent's unit, or ulimit -n %d", minFiles, minFiles)
	}
	return fmt.Sprintf("%d files may be open at once", limit), nil
}
