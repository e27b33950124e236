package apply

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/agent/service"
)

const (
	memTargetDir = "/opt/acme"
	memTarget    = memTargetDir + "/acme"
	memState     = "/var/lib/shoal/apply"
)

var (
	oldProgram = strings.Repeat("old program ", 50)
	newProgram = strings.Repeat("new program, a little longer ", 60)
	// As somebody had set it up: a setuid program of another group, with a capability.
	oldMeta = Meta{Mode: 0o750 | fs.ModeSetuid, UID: 0, GID: 33, Xattrs: map[string][]byte{"security.capability": []byte("\x01\x00\x00\x02")}}
)

func sum(content string) [32]byte { return sha256.Sum256([]byte(content)) }

// machine is a computer with a program that is kept up to date, as far as this
// package sees one. Its service runs what was at the target when it was started.
type machine struct {
	mem     *memFS
	proc    *faultFS // the agent's view of mem: one process
	swap    string
	running string // content of the program that runs; empty: none
	stopped bool   // by a person
	sick    map[string]bool
	crashes map[string]bool // cannot even be started
	boot    string
	up      time.Duration
	now     time.Time

	fresh       bool // nothing was installed before
	serviceless bool
	starts      int
	checks      int
	states      []State
	tweak       func(*Program)
}

func newMachine(swap string, install bool) *machine {
	m := &machine{
		mem:  newMemFS("/opt", memTargetDir, "/var", "/var/lib", "/var/lib/shoal"),
		swap: swap, sick: map[string]bool{}, crashes: map[string]bool{},
		boot: "boot-1", up: time.Hour, now: time.Date(2026, 11, 22, 11, 20, 0, 0, time.UTC),
	}
	if m.fresh = install; !install {
		m.mem.put(memTarget, oldProgram, oldMeta)
		m.running = oldProgram
	}
	m.newProcess()
	return m
}

// newProcess starts the agent anew.
func (m *machine) newProcess() {
	m.proc = &faultFS{FS: m.mem}
	m.mem.wrapped = m.proc
}

// reboot cuts the power, and starts the service as an init system would.
func (m *machine) reboot(p powerCut) *machine {
	after := *m
	after.mem = m.mem.cut(p)
	if p.name != "kill" {
		after.boot, after.up = m.boot+"+", time.Minute
		after.running = ""
		if content, _, ok := after.mem.content(memTarget); ok && !m.stopped && !m.crashes[content] {
			after.running = content
		}
	}
	after.newProcess()
	return &after
}

func (m *machine) engine() *Engine {
	e, err := New(Options{StateDir: memState, FS: m.proc, Now: func() time.Time { return m.now }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	e.boot = func() (string, time.Duration) { return m.boot, m.up }
	e.stayUp = time.Nanosecond
	return e
}

func (m *machine) program() Program {
	p := Program{
		Target:   Target{App: "acme", Path: memTarget, Swap: m.swap, AllowInstall: true},
		Service:  (*machineService)(m),
		Health:   (*machineHealth)(m),
		Progress: func(s State) { m.states = append(m.states, s) },
	}
	if m.serviceless {
		p.Service = service.None{}
	}
	if m.tweak != nil {
		m.tweak(&p)
	}
	return p
}

func updateTo(content string) Update {
	return Update{
		To: Release{
			Version: "version of " + content[:3], SHA256: sum(content), Length: int64(len(content)), Epoch: 1, Sequence: 43,
		},
		Source:    bytes.NewReader([]byte(content)),
		Authorize: func(context.Context) error { return nil },
	}
}

func (m *machine) apply(content string) (Result, error) {
	return m.engine().Apply(context.Background(), m.program(), updateTo(content))
}

func (m *machine) recover() (Result, error) {
	return m.engine().Recover(context.Background(), m.program())
}

// target returns what is installed.
func (m *machine) target() string {
	content, _, _ := m.mem.content(memTarget)
	return content
}

// machineService is the init system of a machine. A dead agent reaches it no more.
type machineService machine

func (s *machineService) State(context.Context) (service.State, error) {
	if s.proc.dead {
		return service.State{}, errDead
	}
	return service.State{Running: s.running != "", Failed: s.running == "" && !s.stopped, Enabled: true, PID: s.starts}, nil
}

func (s *machineService) Restart(ctx context.Context) error {
	if s.proc.dead {
		return errDead
	}
	s.starts++
	content, _, ok := s.mem.content(memTarget)
	if !ok || s.crashes[content] {
		s.running = ""
		return errors.New("the service could not be started")
	}
	s.running, s.stopped = content, false
	return ctx.Err()
}

func (s *machineService) Start(ctx context.Context) error { return s.Restart(ctx) }

func (s *machineService) Stop(context.Context) error {
	if s.proc.dead {
		return errDead
	}
	s.running = ""
	return nil
}

// machineHealth asks the program that runs.
type machineHealth machine

func (h *machineHealth) Probe(context.Context) error {
	if h.proc.dead {
		return errDead
	}
	if h.running == "" && !h.serviceless {
		return errors.New("nothing runs")
	}
	program := h.running
	if h.serviceless { // then it is a command that runs what is installed
		program = (*machine)(h).target()
	}
	if h.sick[program] {
		return errors.New("license.dat: no such file")
	}
	return nil
}

func (h *machineHealth) Check(ctx context.Context) error {
	h.checks++
	return h.Probe(ctx)
}

// assertWhole fails unless the target is one of the given contents ("" is none),
// with the metadata it must have.
func (m *machine) assertWhole(t *testing.T, at string, want ...string) {
	t.Helper()
	content, meta, _ := m.mem.content(memTarget)
	if !slices.Contains(want, content) {
		t.Fatalf("%s: the target is %s, want %s", at, called(content), called(want...))
	}
	wantMeta := oldMeta
	if m.fresh {
		wantMeta = Meta{Mode: 0o755}
	}
	if content != "" && !meta.equal(wantMeta) {
		t.Fatalf("%s: the target %s has metadata %+v, want %+v", at, called(content), meta, wantMeta)
	}
}

// assertTidy fails if anything is beside the target that should not be, or a
// transaction is still open.
func (m *machine) assertTidy(t *testing.T, at string) {
	t.Helper()
	for _, name := range m.mem.list(memTargetDir) {
		if _, prev := (names{memTarget}).isPrevious(filepath.Join(memTargetDir, name)); name != "acme" && !prev {
			t.Fatalf("%s: %q was left", at, name)
		}
	}
	for dir := range m.mem.dirs {
		if strings.HasPrefix(dir, memState+"/") && slices.Contains(m.mem.list(dir), "journal") {
			t.Fatalf("%s: the journal was left", at)
		}
	}
}

func called(contents ...string) string {
	var s []string
	for _, c := range contents {
		switch {
		case c == "":
			s = append(s, "missing")
		case c == oldProgram:
			s = append(s, "OLD")
		case c == newProgram:
			s = append(s, "NEW")
		default:
			s = append(s, fmt.Sprintf("%.20q… (%d bytes)", c, len(c)))
		}
	}
	return strings.Join(s, " or ")
}
