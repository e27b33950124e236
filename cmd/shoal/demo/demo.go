package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"path/filepath"
	"time"

	"shoal/internal/fault"
)

// Limits of what may be asked for.
const (
	maxAgents = 64 // each is a process with a swarm of its own
	maxSize   = 4 << 30
)

const (
	app     = "acme"
	channel = "stable"

	oldVersion  = "1.0.0"
	newVersion  = "2.0.0"
	thiefs      = "2.0.1" // the release that is signed with one stolen key
	badVersion  = "3.0.0" // the release whose program crashes at its start
	canaryRing  = "canary"
	signersNeed = 2
)

// Config says what demo to run.
type Config struct {
	// Exe is the running executable; its copies are everything the demo starts. It must
	// be set.
	Exe string
	// Agents is how many machines there are at first, 1 to 64. From 3 on the last of them
	// has no network, and one more, which knows nobody but that one, joins at the end.
	Agents int
	// Size is the program's in bytes; it is never smaller than the executable's.
	Size int64
	// Limit bounds what the publisher gives, as the serve command takes it; empty is no bound.
	Limit string
	// Base is where the demo's directory is made; empty means the system's place for
	// temporary files.
	Base string
	// Keep has the fleet stay up when all has been shown.
	Keep bool
	// Open has the fleet page opened in the person's browser, where there is a desktop; the
	// fleet then stays up too.
	Open bool
	// Stay is called when all has been shown and the fleet stays up, with where it runs; it
	// does so until that returns. It must be set with Keep or Open.
	Stay func(ctx context.Context, r *Result, dir string)
	// Talk gets what a person reads as it happens; nil means nothing is said. Fancy says
	// that it is a terminal on which bars may move.
	Talk  io.Writer
	Fancy bool
}

// Result is what was measured.
type Result struct {
	Agents        int       `json:"agents"`         // machines there are at the end
	Updated       int       `json:"updated"`        // machines on which the new version answers
	ArtifactBytes int64     `json:"artifact_bytes"` // size of the new version
	OriginBytes   int64     `json:"origin_bytes"`   // payload bytes all machines got from the publisher
	PeerBytes     int64     `json:"peer_bytes"`     // and from each other
	Copies        float64   `json:"copies"`         // OriginBytes in sizes of the new version
	Seconds       float64   `json:"seconds"`        // from its publication to the last machine's confirmation
	Refusals      []Refusal `json:"refusals"`
	Machines      []Machine `json:"machines"`
	Problems      []string  `json:"problems,omitempty"` // what differs from what must happen
}

// Machine is how one machine took the new version.
type Machine struct {
	Name        string  `json:"name"`
	Address     string  `json:"address"` // of its program
	OriginBytes int64   `json:"origin_bytes"`
	PeerBytes   int64   `json:"peer_bytes"`
	Seconds     float64 `json:"seconds"`
}

// Refusal is one thing that must not work, as every machine answered it.
type Refusal struct {
	Case    string `json:"case"`
	Code    string `json:"code"`
	Exit    int    `json:"exit"`
	Running string `json:"running"` // the version that answers afterwards
}

// Run runs the demo. Whatever it started and wrote is gone when it returns. An error
// says that it could not be shown; what was shown and differs from what must happen
// is in the result's problems.
func Run(ctx context.Context, cfg Config) (_ *Result, err error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	dir, err := newWorkDir(cfg.Base)
	if err != nil {
		return nil, err
	}
	f := &fleet{cfg: cfg, dir: dir, group: newGroup(), size: cfg.Size}
	f.group.note = dir.note
	defer func() {
		// Programs first: nothing may write into a directory that is being removed.
		f.group.Close()
		if f.supervisor != nil {
			f.supervisor.Close()
		}
		err = errors.Join(err, dir.remove())
	}()
	steps := []func(context.Context) error{f.build, f.publishFirst, f.serve, f.join, f.update, f.refusals}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err() // what failed after an interrupt failed because of it
			}
			return nil, err
		}
	}
	if cfg.Keep || f.opened() {
		cfg.Stay(ctx, &f.result, dir.path)
	}
	return &f.result, nil
}

func (c *Config) check() error {
	if c.Talk == nil {
		c.Talk, c.Fancy = io.Discard, false
	}
	if c.Agents < 1 || c.Agents > maxAgents {
		return fault.New(fault.Usage, "a demo has 1 to %d agents, not %d", maxAgents, c.Agents)
	}
	if c.Size < 0 || c.Size > maxSize {
		return fault.New(fault.Usage, "a demo's program has at most %d bytes, not %d", int64(maxSize), c.Size)
	}
	return nil
}

// fleet is one demo under way.
type fleet struct {
	cfg        Config
	dir        *workDir
	group      *group
	supervisor *supervisor
	size       int64 // of the new version, once built
	publisher  publisher
	link       string   // by which machines join
	page       string   // link to the fleet page, good for one login
	browser    *browser // that it was opened with; nil for none
	machines   []*machine
	began      time.Time     // when the new version had been published
	last       time.Duration // from then to the last confirmation
	result     Result
}

func (f *fleet) say(format string, args ...any) { fmt.Fprintf(f.cfg.Talk, format+"\n", args...) }

// problem notes something that differs from what must happen.
func (f *fleet) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	f.result.Problems = append(f.result.Problems, text)
	f.say("    ✗ %s", text)
}

func (f *fleet) path(elem ...string) string {
	return filepath.Join(append([]string{f.dir.path}, elem...)...)
}

func (f *fleet) buildPath(version string) string { return f.path("builds", version, app) }

// shoal is a command of the program itself, with variables of its own and nothing of
// the caller's configuration.
func (f *fleet) shoal(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(f.cfg.Exe, args...)
	cmd.Env = append(cleanEnv(), env...)
	cmd.Dir = f.dir.path
	return cmd
}

// until calls done until it says so, as soon as the machine allows but not busily.
func until(ctx context.Context, bound time.Duration, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if err == nil {
				err = ctx.Err()
			}
			return err
		}
	}
}

// round leaves what was measured, without the digits that mean nothing.
func round(x float64, digits int) float64 {
	shift := math.Pow10(digits)
	return math.Round(x*shift) / shift
}
