package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"shoal/agent/health"
	"shoal/agent/service"
	"shoal/internal/fault"
)

// What a version of a program that replaces itself does.
const (
	mute   = "mute"   // does not start at all
	brief  = "brief"  // counts its start and ends
	asleep = "asleep" // starts, and is never well
)

// selfMachine is a machine whose agent is the program that is kept up to date: what
// runs is the agent.
type selfMachine struct {
	*machine
	does   map[string]string // by content of the program
	unfit  bool              // the trial refuses the new version
	guards int               // how often the guard was called
}

func newSelfMachine() *selfMachine {
	return &selfMachine{machine: newMachine(SwapRename, false), does: map[string]string{}}
}

// selfService is the agent's own.
type selfService struct {
	service.None
	m *selfMachine
}

func (s selfService) State(context.Context) (service.State, error) {
	return service.State{Running: true, Enabled: true}, nil
}

func (s selfService) Restart(context.Context) error {
	if s.m.running == s.m.target() {
		return nil
	}
	return service.ErrSelf
}

// selfGate is well unless the program sleeps.
type selfGate struct {
	health.None
	m *selfMachine
}

func (g selfGate) Check(context.Context) error {
	if g.m.proc.dead {
		return errDead
	}
	if g.m.does[g.m.running] == asleep {
		return errors.New("no cycle was finished")
	}
	return nil
}

func (m *selfMachine) program() Program {
	return Program{
		Target:  Target{App: "shoal", Path: memTarget, Swap: SwapRename},
		Service: selfService{m: m}, Health: selfGate{m: m}, Self: true,
		Trial: func(_ context.Context, path string) error {
			if content, _, _ := m.mem.content(path); content != newProgram {
				return fmt.Errorf("the staged file is %s", called(content))
			}
			if m.unfit {
				return errors.New("exec format error")
			}
			return nil
		},
	}
}

// update is the old agent's last work.
func (m *selfMachine) update() (Result, error) {
	return m.engine().Apply(context.Background(), m.program(), updateTo(newProgram))
}

// supervise starts the agent until it stays, as an init system with a start limit and
// a guard does. The first process dies at call k, if it gets so far; 0 is never.
func (m *selfMachine) supervise(t *testing.T, k int) (died bool) {
	t.Helper()
	first, starts := &faultFS{FS: m.mem, at: k}, 0
	for i := range 20 {
		if m.newProcess(); i == 0 {
			m.proc, m.mem.wrapped = first, first
		}
		m.running = m.target()
		if starts++; starts > 5 {
			m.newProcess()
			m.guards++
			if _, err := m.engine().RevertSelf(fault.New(fault.Reverted, "it did not start")); err != nil {
				t.Fatal(err)
			}
			starts = 0
			continue
		}
		if m.does[m.running] == mute {
			continue
		}
		if reverted, _ := m.engine().Started(memTarget); reverted || m.does[m.running] == brief {
			continue
		}
		_, err := m.engine().Recover(context.Background(), m.program())
		if m.proc.dead || errors.Is(err, service.ErrSelf) {
			continue
		}
		return first.dead
	}
	t.Fatalf("the agent never stayed; %s is installed", called(m.target()))
	return false
}

func (m *selfMachine) failed(t *testing.T) bool {
	t.Helper()
	failed, err := m.engine().Failed(m.program().Target, sum(newProgram), 0)
	if err != nil {
		t.Fatal(err)
	}
	return failed
}

var selfVersions = []struct {
	name, does string
	unfit      bool
	guards     int // calls of the guard it takes
}{
	{name: "good"},
	{name: "does-not-start", does: mute, guards: 1},
	{name: "ends-after-its-start", does: brief},
	{name: "never-well", does: asleep},
	{name: "fails-its-trial", unfit: true},
}

func TestSelfUpdate(t *testing.T) {
	for _, v := range selfVersions {
		t.Run(v.name, func(t *testing.T) {
			m := newSelfMachine()
			m.does[newProgram], m.unfit = v.does, v.unfit
			res, err := m.update()
			if v.unfit {
				if res.State != Aborted || !errors.Is(err, fault.HealthFailed) || !strings.Contains(err.Error(), "exec format error") {
					t.Fatalf("%+v, %v", res, err)
				}
			} else if res.State != Confirming || !errors.Is(err, service.ErrSelf) {
				t.Fatalf("%+v, %v; want a swap, and a restart asked for", res, err)
			} else {
				m.supervise(t, 0)
			}
			m.assertTidy(t, "in the end")
			if good := v.name == "good"; m.target() != map[bool]string{true: newProgram, false: oldProgram}[good] || m.failed(t) == good {
				t.Errorf("%s is installed, failed %v", called(m.target()), m.failed(t))
			}
			if m.guards != v.guards {
				t.Errorf("the guard was called %d times, want %d", m.guards, v.guards)
			}
			if target, err := m.engine().RevertSelf(fault.New(fault.Reverted, "it did not start")); target != "" || err != nil {
				t.Errorf("the guard found something to do: %q, %v", target, err)
			}
			if v.name == "good" {
				return
			}
			// The mark is on the content: another manifest with the same does not help.
			u := updateTo(newProgram)
			u.To.Sequence++
			if _, err := m.engine().Apply(context.Background(), m.program(), u); !errors.Is(err, fault.HealthFailed) || m.target() != oldProgram {
				t.Errorf("offered again: %v", err)
			}
		})
	}
}

// The agent is killed at every call while it replaces itself, and then, at every call,
// in its next process.
func TestSelfUpdateKillSweep(t *testing.T) {
	if raceDetector && !thorough {
		t.Skip("takes long with the race detector, and is all in one goroutine")
	}
	for _, v := range selfVersions {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			final := []string{oldProgram}
			if v.name == "good" {
				final = append(final, newProgram)
			}
			whole := newSelfMachine()
			whole.does[newProgram], whole.unfit = v.does, v.unfit
			whole.update()
			for k := 1; k <= whole.proc.calls+1; k++ { // the last of these is not killed
				for j := 0; ; j++ {
					m := newSelfMachine()
					m.does[newProgram], m.unfit = v.does, v.unfit
					m.proc.at = k
					m.update()
					at := fmt.Sprintf("killed at %s, then at call %d", m.proc.where(), j)
					m.assertWhole(t, at, oldProgram, newProgram)
					died := m.supervise(t, j)
					m.assertWhole(t, at+", supervised", final...)
					m.assertTidy(t, at+", supervised")
					if m.running != m.target() {
						t.Fatalf("%s: %s runs, %s is installed", at, called(m.running), called(m.target()))
					}
					m.newProcess()
					if _, again := m.engine().Recover(context.Background(), m.program()); again != nil {
						t.Fatalf("%s: a second recovery: %v", at, again)
					}
					if j > 0 && !died {
						break
					}
				}
			}
		})
	}
}

// A start is counted only against the program's own update.
func TestStartedCountsOnlyItself(t *testing.T) {
	m := newSelfMachine()
	m.update()
	m.newProcess()
	count := func() int {
		s, err := m.engine().openSelf()
		if s == nil {
			t.Fatal("no update is under way: ", err)
		}
		defer s.close()
		return s.j.Attempts
	}
	before := count()
	if reverted, err := m.engine().Started("/usr/bin/shoal"); reverted || err != nil || count() != before {
		t.Errorf("another copy of the program: %v, %v, %d starts", reverted, err, count())
	}
	if reverted, err := m.engine().Started(memTarget); reverted || err != nil || count() != before+1 {
		t.Errorf("the program: %v, %v, %d starts, want %d", reverted, err, count(), before+1)
	}
	other := newMachine(SwapRename, false)
	other.proc.match = func(call string) bool { other.proc.dead = call == "rename acme"; return false }
	other.apply(newProgram)
	other.newProcess()
	if reverted, err := other.engine().Started(memTarget); reverted || err != nil {
		t.Errorf("another program's update: %v, %v", reverted, err)
	}
	if target, err := other.engine().RevertSelf(fault.New(fault.Reverted, "x")); target != "" || err != nil {
		t.Errorf("another program's update was put back: %q, %v", target, err)
	}
}
