package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"shoal/internal/fault"
)

// scenario is one transaction, to be stopped anywhere.
type scenario struct {
	name  string
	make  func(swap string) *machine // the machine before it
	run   func(*machine) (Result, error)
	ends  State    // when nothing goes wrong
	legal []string // what may be at the target, at any time
	final []string // what may be there once it was recovered
}

// thorough is set to sweep every combination, which takes minutes. Otherwise the
// combinations that differ least from others are left out.
var thorough = os.Getenv("SHOAL_TEST_THOROUGH") != ""

func plainApply(m *machine) (Result, error) { return m.apply(newProgram) }

var scenarios = []scenario{
	{
		name: "healthy", run: plainApply, ends: Confirmed,
		make:  func(swap string) *machine { return newMachine(swap, false) },
		legal: []string{oldProgram, newProgram}, final: []string{oldProgram, newProgram},
	}, {
		name: "unhealthy", run: plainApply, ends: Reverted,
		make: func(swap string) *machine {
			m := newMachine(swap, false)
			m.sick[newProgram] = true
			return m
		},
		legal: []string{oldProgram, newProgram}, final: []string{oldProgram},
	}, {
		name: "bad-restart", run: plainApply, ends: Reverted,
		make: func(swap string) *machine {
			m := newMachine(swap, false)
			m.crashes[newProgram] = true
			return m
		},
		legal: []string{oldProgram, newProgram}, final: []string{oldProgram},
	}, {
		name: "revert", ends: Confirmed,
		make: func(swap string) *machine {
			m := newMachine(swap, false)
			if _, err := m.apply(newProgram); err != nil {
				panic(err)
			}
			return m
		},
		run: func(m *machine) (Result, error) {
			return m.engine().Revert(context.Background(), m.program(), "", func(context.Context, Release) error { return nil })
		},
		legal: []string{oldProgram, newProgram}, final: []string{oldProgram, newProgram},
	}, {
		name: "first-install", run: plainApply, ends: Confirmed,
		make:  func(swap string) *machine { return newMachine(swap, true) },
		legal: []string{"", newProgram}, final: []string{"", newProgram},
	}, {
		name: "unhealthy-first-install", run: plainApply, ends: Reverted,
		make: func(swap string) *machine {
			m := newMachine(swap, true)
			m.sick[newProgram] = true
			return m
		},
		legal: []string{"", newProgram}, final: []string{""},
	},
}

var (
	linksOnly      = []string{"links"}
	linksAndCopies = []string{"links", "no-links"} // as on FAT
)

// eachScenario runs f for each scenario with each swapper, with hard links or
// without.
func eachScenario(t *testing.T, links []string, f func(t *testing.T, s scenario, make func() *machine)) {
	if raceDetector && !thorough {
		t.Skip("takes minutes with the race detector, and is all in one goroutine")
	}
	for _, s := range scenarios {
		for _, swap := range swaps {
			for _, links := range links {
				t.Run(s.name+"/"+swap+"/"+links, func(t *testing.T) {
					t.Parallel()
					f(t, s, func() *machine {
						m := s.make(swap)
						m.mem.noLinks = links == "no-links"
						m.newProcess()
						return m
					})
				})
			}
		}
	}
}

// calls returns how many calls the scenario makes when nothing goes wrong.
func (s scenario) calls(t *testing.T, m *machine) int {
	t.Helper()
	res, err := s.run(m)
	if res.State != s.ends || (err == nil) != (s.ends == Confirmed) {
		t.Fatalf("undisturbed: %+v, %v", res, err)
	}
	return m.proc.calls
}

// assertRecovered recovers and asserts the promise.
func (s scenario) assertRecovered(t *testing.T, m *machine, at string) {
	t.Helper()
	res, err := m.recover()
	if res.State == Failed || err != nil && !slices.Contains([]fault.Code{fault.HealthFailed, fault.Reverted}, fault.CodeOf(err)) {
		t.Fatalf("%s: recovery ended in %+v, %v", at, res, err)
	}
	m.assertWhole(t, at+", recovered", s.final...)
	m.assertTidy(t, at+", recovered")
	if target := m.target(); m.running != target && !(target == "" && m.running == "") {
		t.Fatalf("%s: recovered to %s, but %s runs", at, called(target), called(m.running))
	}
	writes, starts := m.mem.writes, m.starts
	if res, err := m.recover(); res.State != Idle || err != nil || m.mem.writes != writes || m.starts != starts {
		t.Fatalf("%s: a second recovery was no no-op: %+v, %v, %d writes, %d starts", at, res, err, m.mem.writes-writes, m.starts-starts)
	}
}

// assertGoesOn asserts that the machine can be updated after all that.
func (s scenario) assertGoesOn(t *testing.T, m *machine, at string) {
	t.Helper()
	third := strings.Repeat("a third program ", 40)
	res, err := m.apply(third)
	if err != nil || res.State != Confirmed || m.target() != third || m.running != third {
		t.Fatalf("%s: the next update: %+v, %v; %s is there, %s runs", at, res, err, called(m.target()), called(m.running))
	}
	m.assertTidy(t, at+", updated")
}

// The agent is killed, or the power is cut, at every call to the file system.
func TestKillSweep(t *testing.T) {
	eachScenario(t, linksAndCopies, func(t *testing.T, s scenario, make func() *machine) {
		total := s.calls(t, make())
		for k := 1; k <= total; k++ {
			m := make()
			m.proc.at = k
			_, err := s.run(m)
			at := "killed at " + m.proc.where()
			if !m.proc.dead {
				t.Fatalf("%s: it lives on", at)
			}
			if err == nil && m.mem.cut(powerCuts[0]).target() == oldProgram && s.name != "revert" {
				t.Fatalf("%s: reported as done, and it was not", at)
			}
			for _, p := range powerCuts {
				after := m.reboot(p)
				at := at + ", " + p.name
				legal := s.legal
				if after.swap == SwapSelfupdate {
					legal = append([]string{""}, legal...) // its gap, until recovery
					if content := after.target(); !slices.Contains(legal, content) {
						t.Fatalf("%s: the target is %s", at, called(content))
					}
				} else {
					after.assertWhole(t, at, legal...)
				}
				s.assertRecovered(t, after, at)
				if p.name == "kill" || thorough {
					s.assertGoesOn(t, after, at)
				}
			}
		}
	})
}

func (m *memFS) target() string {
	content, _, _ := m.content(memTarget)
	return content
}

// Recovery is killed as well, at every call it makes.
func TestDoubleFault(t *testing.T) {
	links, cuts := linksOnly, powerCuts[:2]
	if thorough {
		links, cuts = linksAndCopies, powerCuts
	}
	eachScenario(t, links, func(t *testing.T, s scenario, make func() *machine) {
		total := s.calls(t, make())
		for k := 1; k <= total; k++ {
			m := make()
			m.proc.at = k
			s.run(m)
			for i, first := range cuts {
				if i != k%len(cuts) && !thorough {
					continue
				}
				for j := 1; ; j++ {
					recovering := m.reboot(first)
					recovering.proc.at = j
					recovering.recover()
					if !recovering.proc.dead {
						break
					}
					for i, second := range cuts {
						if i != j%len(cuts) && !thorough {
							continue
						}
						after := recovering.reboot(second)
						at := fmt.Sprintf("%s at call %d, then %s at %s", first.name, k, second.name, recovering.proc.where())
						if after.swap == SwapRename {
							after.assertWhole(t, at, s.legal...)
						}
						s.assertRecovered(t, after, at)
					}
				}
			}
		}
	})
}

// Every call fails once, or from then on for good.
func TestErrorSweep(t *testing.T) {
	links := linksOnly
	if thorough {
		links = linksAndCopies
	}
	eachScenario(t, links, func(t *testing.T, s scenario, make func() *machine) {
		total := s.calls(t, make())
		for k := 1; k <= total; k++ {
			for _, errno := range faults {
				for _, sticky := range []bool{false, true} {
					m := make()
					m.proc.at, m.proc.err, m.proc.sticky = k, errno, sticky
					res, err := s.run(m)
					at := fmt.Sprintf("%v at %s, for good %v: %q, %v", errno, m.proc.where(), sticky, res.State, err)
					s.assertHonest(t, m, res, err, at)
					m.newProcess() // with a disk that works again
					if res.State == Failed {
						if err := m.engine().ClearFailed(m.program().Target); err != nil {
							t.Fatalf("%s: clearing: %v", at, err)
						}
					}
					if m.target() == newProgram && len(s.final) == 1 && res.State != Failed && res.State != Confirming && res.State != Reverting {
						t.Fatalf("%s: a bad version was left", at)
					}
					if m.target() == "" && len(s.legal) == 2 && s.legal[0] != "" && res.State != Failed && res.State != Staged {
						t.Fatalf("%s: no program was left", at)
					}
					if res.State == Failed {
						continue // a person decides
					}
					s.assertRecovered(t, m, at)
					if errno == faults[0] {
						s.assertGoesOn(t, m, at)
					}
				}
			}
		}
	})
}

// assertHonest asserts that what Apply says is what is.
func (s scenario) assertHonest(t *testing.T, m *machine, res Result, err error, at string) {
	t.Helper()
	var typed *fault.Error
	if err != nil && !errors.As(err, &typed) {
		t.Fatalf("%s: an error without a code", at)
	}
	before, after := s.legal[0], s.legal[1]
	if s.name == "revert" {
		before, after = after, before
	}
	switch res.State {
	case Confirmed:
		m.assertWhole(t, at, after)
		if err != nil {
			t.Fatalf("%s: confirmed with an error", at)
		}
		return
	case Idle, Aborted, Reverted:
		if m.target() != before {
			t.Fatalf("%s: the target is %s", at, called(m.target()))
		}
	}
	if err == nil {
		t.Fatalf("%s: no error", at)
	}
}
