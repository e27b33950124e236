//go:build linux || darwin

package apply

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/internal/fault"
)

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

func TestHooks(t *testing.T) {
	t.Setenv("SHOAL_RELEASE_KEY", "secret")
	log := filepath.Join(t.TempDir(), "log")
	show := `echo "$SHOAL_HOOK $SHOAL_APP $SHOAL_TARGET $SHOAL_ATTEMPT $SHOAL_FROM_VERSION>$SHOAL_TO_VERSION [$SHOAL_RELEASE_KEY]" >>` + log
	hooks := Hooks{Pre: sh(show), Post: sh(show), OnRevert: sh(show)}
	m := newMachine(SwapRename, false)
	m.tweak = func(p *Program) { p.Hooks = hooks }
	if _, err := m.apply(newProgram); err != nil {
		t.Fatal(err)
	}
	third := "3rd program"
	m.sick[third] = true
	if res, err := m.apply(third); res.State != Reverted {
		t.Fatal(res, err)
	}
	got, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	want := `pre acme /opt/acme/acme 1 >version of new []
post acme /opt/acme/acme 1 >version of new []
pre acme /opt/acme/acme 1 version of new>version of 3rd []
on_revert acme /opt/acme/acme 1 version of new>version of 3rd []
`
	if string(got) != want {
		t.Errorf("the hooks said\n%swant\n%s", got, want)
	}
}

// The pre hook can try the staged file, which is complete and has its final mode.
func TestPreHookCanRunTheStagedFile(t *testing.T) {
	d := newRealDir(t, oldProgram, 0o755)
	program := "#!/bin/sh\necho self-check of $0; exit $1\n"
	for status, want := range map[string]State{"0": Confirmed, "3": Aborted} {
		d.tweak = func(p *Program) { p.Hooks.Pre = sh(`"$SHOAL_STAGED" ` + status) }
		res, err := d.apply(SwapRename, program+"# "+status)
		if res.State != want {
			t.Errorf("exit %s: %+v, %v", status, res, err)
		}
		h, err := d.engine().History(d.program(SwapRename).Target)
		if err != nil || len(h) == 0 {
			t.Fatalf("history %+v, %v", h, err)
		}
		if hook := h[len(h)-1].Hooks; len(hook) != 1 || !strings.HasPrefix(hook[0].Output, "self-check of "+d.dir) {
			t.Errorf("exit %s: hooks %+v", status, hook)
		}
	}
}

func TestFailingHooks(t *testing.T) {
	long := sh("sleep 600 & echo waiting; wait")
	rows := []struct {
		name  string
		hooks Hooks
		sick  bool
		state State
		code  fault.Code
		exit  int
		says  string
	}{
		{"pre-exits-3", Hooks{Pre: sh("echo not now; exit 3")}, false, Aborted, fault.ApplyFailed, 3, `exited 3: "not now"`},
		{"pre-cannot-start", Hooks{Pre: []string{"/nonexistent"}}, false, Aborted, fault.ApplyFailed, -1, "no such file"},
		{"pre-times-out", Hooks{Pre: long, Timeout: 2 * time.Second}, false, Aborted, fault.ApplyFailed, -1, `timed out after 2s: "waiting"`},
		{"post-exits-3", Hooks{Post: sh("exit 3")}, false, Confirmed, fault.OK, 3, "exited 3"},
		{"post-times-out", Hooks{Post: long, Timeout: 200 * time.Millisecond}, false, Confirmed, fault.OK, -1, "timed out"},
		{"on-revert-exits-3", Hooks{OnRevert: sh("exit 3")}, true, Reverted, fault.HealthFailed, 3, "exited 3"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(SwapRename, false)
			m.sick[newProgram] = r.sick
			m.tweak = func(p *Program) { p.Hooks = r.hooks }
			res, err := m.apply(newProgram)
			wantCode(t, err, r.code)
			if res.State != r.state || r.state == Aborted && !strings.Contains(err.Error(), r.says) {
				t.Errorf("got %+v, %v", res, err)
			}
			want := oldProgram
			if r.state == Confirmed {
				want = newProgram
			}
			m.assertWhole(t, "after", want)
			m.assertTidy(t, "after")
			h, err := m.engine().History(m.program().Target)
			if err != nil || len(h) != 1 || len(h[0].Hooks) != 1 || h[0].Hooks[0].Exit != r.exit || !strings.Contains(h[0].Hooks[0].Error, r.says) {
				t.Errorf("history %+v, %v", h, err)
			}
		})
	}
}

func TestHookOutputIsKeptToALimit(t *testing.T) {
	m := newMachine(SwapRename, false)
	flood := sh("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")
	m.tweak = func(p *Program) { p.Hooks = Hooks{Pre: flood, Post: flood} }
	if _, err := m.apply(newProgram); err != nil {
		t.Fatal(err)
	}
	h, err := m.engine().History(m.program().Target)
	if err != nil || len(h) != 1 || len(h[0].Hooks) != 2 {
		t.Fatalf("history %+v, %v", h, err)
	}
	for _, hook := range h[0].Hooks {
		if len(hook.Output) != 64<<10 || !strings.HasSuffix(hook.Output, "line 19999\n") {
			t.Errorf("%s: %d bytes kept", hook.Hook, len(hook.Output))
		}
	}
}

// After a crash a hook runs again, and is told so.
func TestHooksAreRepeatedAfterACrash(t *testing.T) {
	for _, hook := range []string{hookPre, hookPost, hookOnRevert} {
		t.Run(hook, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			m := newMachine(SwapRename, false)
			m.sick[newProgram] = hook == hookOnRevert
			argv := sh("echo $SHOAL_ATTEMPT >>" + log)
			m.tweak = func(p *Program) {
				switch hook {
				case hookPre:
					p.Hooks.Pre = argv
				case hookPost:
					p.Hooks.Post = argv
				default:
					p.Hooks.OnRevert = argv
				}
			}
			want := "1\n2\n3\n"
			for n := range 3 {
				if n < 2 { // dies right after the hook
					m.proc.match = func(string) bool {
						ran, _ := os.ReadFile(log)
						m.proc.dead = m.proc.dead || len(ran) > 2*n
						return m.proc.dead
					}
					m.proc.err = errDead
				}
				if n == 0 || hook == hookPre {
					m.apply(newProgram)
				} else {
					m.recover()
				}
				m.newProcess()
			}
			if got, err := os.ReadFile(log); string(got) != want {
				t.Errorf("attempts %q, %v; want %q", got, err, want)
			}
			m.assertTidy(t, "at last")
		})
	}
}

// A hook that the end of the agent cut short has not failed: it runs again.
func TestInterruptedHooksRunAgain(t *testing.T) {
	for _, at := range []State{Confirmed, Reverted} {
		t.Run(string(at), func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			m := newMachine(SwapRename, false)
			m.sick[newProgram] = at == Reverted
			ctx, cancel := context.WithCancel(t.Context())
			hooks := Hooks{Post: sh("echo $SHOAL_ATTEMPT >>" + log), OnRevert: sh("echo $SHOAL_ATTEMPT >>" + log)}
			m.tweak = func(p *Program) {
				p.Hooks = hooks
				p.Progress = func(s State) {
					if s == at {
						cancel()
					}
				}
			}
			if res, err := m.engine().Apply(ctx, m.program(), updateTo(newProgram)); res.State != at {
				t.Fatalf("%+v, %v", res, err)
			}
			m.tweak = func(p *Program) { p.Hooks = hooks }
			if res, err := m.recover(); res.State != at {
				t.Errorf("recovered: %+v, %v", res, err)
			}
			if got, err := os.ReadFile(log); string(got) != "2\n" {
				t.Errorf("attempts %q, %v", got, err)
			}
			m.assertTidy(t, "at last")
		})
	}
}
