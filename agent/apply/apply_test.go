package apply

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
)

var swaps = []string{SwapRename, SwapSelfupdate}

// eachSwap runs f for every way of swapping.
func eachSwap(t *testing.T, f func(t *testing.T, swap string)) {
	for _, swap := range swaps {
		t.Run(swap, func(t *testing.T) { f(t, swap) })
	}
}

func wantCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if got := fault.CodeOf(err); got != code {
		t.Fatalf("error %v has code %q, want %q", err, got, code)
	}
}

func TestHealthyUpdate(t *testing.T) {
	eachSwap(t, func(t *testing.T, swap string) {
		m := newMachine(swap, false)
		res, err := m.apply(newProgram)
		if err != nil || res.State != Confirmed || res.To.SHA256 != sum(newProgram) || res.From.SHA256 != sum(oldProgram) {
			t.Fatalf("got %+v, %v", res, err)
		}
		m.assertWhole(t, "after the update", newProgram)
		m.assertTidy(t, "after the update")
		if m.running != newProgram {
			t.Errorf("%s runs", called(m.running))
		}
		want := []State{Staged, Committing, Confirming, Confirmed}
		if diff := cmp.Diff(want, m.states); diff != "" {
			t.Error(diff)
		}
		if content, meta, _ := m.mem.content(memTargetDir + "/.acme.shoal-prev-1"); content != oldProgram || !meta.equal(oldMeta) {
			t.Errorf("the previous version is %s with %+v", called(content), meta)
		}
		h, err := m.engine().History(m.program().Target)
		if err != nil || len(h) != 1 || h[0].State != Confirmed || h[0].Attempts != 1 || h[0].Tx != res.Tx || h[0].To.Sequence != 43 {
			t.Errorf("history %+v, %v", h, err)
		}
		in, err := m.engine().Installed(m.program().Target)
		if err != nil || !in.Present || in.Version != "version of new" || in.SHA256 != sum(newProgram) || in.Sequence != 43 {
			t.Errorf("installed %+v, %v", in, err)
		}

		again, err := m.apply(newProgram)
		if err != nil || !again.Unchanged || again.State != Confirmed {
			t.Errorf("the same again: %+v, %v", again, err)
		}
	})
}

func TestUnwellUpdateIsReverted(t *testing.T) {
	rows := []struct {
		name string
		set  func(*machine)
	}{
		{"unhealthy", func(m *machine) { m.sick[newProgram] = true }},
		{"cannot-be-started", func(m *machine) { m.crashes[newProgram] = true }},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			eachSwap(t, func(t *testing.T, swap string) {
				m := newMachine(swap, false)
				r.set(m)
				res, err := m.apply(newProgram)
				wantCode(t, err, fault.HealthFailed)
				if res.State != Reverted || !strings.Contains(err.Error(), "acme version of new was unwell, so this machine is back on acme") {
					t.Errorf("got %+v, %v", res, err)
				}
				m.assertWhole(t, "after the revert", oldProgram)
				m.assertTidy(t, "after the revert")
				if names := m.mem.list(memTargetDir); len(names) != 1 || m.running != oldProgram {
					t.Errorf("%s runs, and there is %v", called(m.running), names)
				}
				want := []State{Staged, Committing, Confirming, Reverting, Reverted}
				if diff := cmp.Diff(want, m.states); diff != "" {
					t.Error(diff)
				}

				// What failed stays failed, whatever sequence offers it; retry asks for another try.
				u := updateTo(newProgram)
				u.To.Sequence, m.states = 44, nil
				_, err = m.engine().Apply(t.Context(), m.program(), u)
				wantCode(t, err, fault.HealthFailed)
				if len(m.states) > 0 {
					t.Errorf("a failed artifact was tried again: %v", m.states)
				}
				u.To.Retry = 1
				if res, _ := m.engine().Apply(t.Context(), m.program(), u); res.State != Reverted {
					t.Errorf("with a higher retry: %+v", res)
				}
				for retry, want := range map[int64]bool{0: true, 1: true, 2: false} {
					if failed, err := m.engine().Failed(m.program().Target, sum(newProgram), retry); failed != want || err != nil {
						t.Errorf("failed with retry %d: %v, %v", retry, failed, err)
					}
				}
				if err := m.engine().ClearFailed(m.program().Target); err != nil {
					t.Fatal(err)
				}
				m.sick, m.crashes = map[string]bool{}, map[string]bool{}
				if res, err := m.apply(newProgram); err != nil || res.State != Confirmed {
					t.Errorf("after the operator's word: %+v, %v", res, err)
				}
			})
		})
	}
}

func TestFirstInstall(t *testing.T) {
	eachSwap(t, func(t *testing.T, swap string) {
		m := newMachine(swap, true)
		if in, err := m.engine().Installed(m.program().Target); err != nil || in.Present {
			t.Fatalf("installed %+v, %v", in, err)
		}
		res, err := m.apply(newProgram)
		if err != nil || res.State != Confirmed || res.From != (Release{}) {
			t.Fatalf("got %+v, %v", res, err)
		}
		m.assertWhole(t, "after the install", "", newProgram)
		m.assertTidy(t, "after the install")
		if m.running != newProgram {
			t.Errorf("%s runs", called(m.running))
		}

		m = newMachine(swap, true)
		m.sick[newProgram] = true
		res, err = m.apply(newProgram)
		wantCode(t, err, fault.HealthFailed)
		if res.State != Reverted || m.target() != "" || m.running != "" || len(m.mem.list(memTargetDir)) != 0 {
			t.Errorf("an unwell first install: %+v, %v; %s is there, %s runs", res, err, called(m.target()), called(m.running))
		}

		m = newMachine(swap, true)
		m.tweak = func(p *Program) { p.Target.AllowInstall = false }
		_, err = m.apply(newProgram)
		wantCode(t, err, fault.Policy)
	})
}

func TestBothVersionsUnwellIsFailed(t *testing.T) {
	eachSwap(t, func(t *testing.T, swap string) {
		m := newMachine(swap, false)
		m.sick[newProgram] = true
		m.tweak = func(p *Program) {
			p.Progress = func(s State) {
				if s == Confirming {
					m.sick[oldProgram] = true // a database was migrated, say
				}
			}
		}
		res, err := m.apply(newProgram)
		wantCode(t, err, fault.ApplyFailed)
		if res.State != Failed || !strings.Contains(err.Error(), "needs a person") {
			t.Fatalf("got %+v, %v", res, err)
		}
		m.assertWhole(t, "failed", oldProgram)
		if failed, err := m.engine().Failed(m.program().Target, sum(newProgram), 0); !failed || err != nil {
			t.Errorf("the artifact is not marked: %v, %v", failed, err)
		}
		starts, writes := m.starts, m.mem.writes
		for range 2 {
			res, err = m.recover()
			if res.State != Failed || err == nil {
				t.Errorf("recovery of a failed transaction: %+v, %v", res, err)
			}
			other := strings.Repeat("another version ", 9)
			if res, err = m.apply(other); res.State != Failed || err == nil {
				t.Errorf("an update after a failed one: %+v, %v", res, err)
			}
		}
		if m.starts != starts || m.mem.writes != writes {
			t.Errorf("something was done: %d starts, %d writes", m.starts-starts, m.mem.writes-writes)
		}
		m.sick = map[string]bool{}
		if err := m.engine().ClearFailed(m.program().Target); err != nil {
			t.Fatal(err)
		}
		m.assertTidy(t, "cleared")
		if res, err := m.apply(newProgram); err != nil || res.State != Confirmed {
			t.Errorf("after the operator's word: %+v, %v", res, err)
		}
	})
}

func TestRevertToPrevious(t *testing.T) {
	eachSwap(t, func(t *testing.T, swap string) {
		m := newMachine(swap, false)
		contents := []string{oldProgram}
		for _, c := range []string{"aaa", "bbb", "ccc", "ddd"} {
			c = strings.Repeat(c, 40)
			contents = append(contents, c)
			if res, err := m.apply(c); err != nil || res.State != Confirmed {
				t.Fatalf("%+v, %v", res, err)
			}
		}
		kept, err := m.engine().Previous(m.program().Target)
		if err != nil || len(kept) != 2 || kept[0].Version != "version of ccc" || kept[1].Version != "version of bbb" {
			t.Fatalf("kept %+v, %v", kept, err)
		}
		if names := m.mem.list(memTargetDir); len(names) != 3 {
			t.Errorf("beside the target: %v", names)
		}
		revert := func(version string) (Result, error) {
			return m.engine().Revert(t.Context(), m.program(), version, func(context.Context, Release) error { return nil })
		}

		if _, err := revert("version of aaa"); !errors.Is(err, fault.NotFound) {
			t.Errorf("a version that is not kept: %v", err)
		}
		blocked := fault.New(fault.Blocked, "no")
		_, err = m.engine().Revert(t.Context(), m.program(), "", func(_ context.Context, r Release) error {
			if r.Version != "version of ccc" || r.SHA256 != sum(contents[3]) {
				t.Errorf("asked about %+v", r)
			}
			return blocked
		})
		if !errors.Is(err, blocked) || m.target() != contents[4] {
			t.Errorf("a blocked version: %v", err)
		}

		if res, err := revert("version of bbb"); err != nil || res.State != Confirmed {
			t.Fatalf("%+v, %v", res, err)
		}
		m.assertWhole(t, "reverted to bbb", contents[2])
		m.assertTidy(t, "reverted to bbb")
		kept, err = m.engine().Previous(m.program().Target)
		if err != nil || len(kept) != 2 || kept[0].Version != "version of ddd" || kept[1].Version != "version of ccc" {
			t.Errorf("kept %+v, %v", kept, err)
		}
		// To the latest, which is the one just left.
		if res, err := revert(""); err != nil || res.State != Confirmed || m.target() != contents[4] {
			t.Errorf("%+v, %v", res, err)
		}
		in, err := m.engine().Installed(m.program().Target)
		if err != nil || in.Version != "version of ddd" {
			t.Errorf("installed %+v, %v", in, err)
		}
	})
}

// The program is gone, and the version before is what a person asks for: it comes back
// as it was, not as a file that nobody can run.
func TestRevertOfAMissingProgramKeepsItsMetadata(t *testing.T) {
	m := newMachine(SwapRename, false)
	if res, err := m.apply(newProgram); err != nil || res.State != Confirmed {
		t.Fatalf("%+v, %v", res, err)
	}
	if err := m.mem.Remove(memTarget); err != nil {
		t.Fatal(err)
	}
	res, err := m.engine().Revert(t.Context(), m.program(), "", func(context.Context, Release) error { return nil })
	if err != nil || res.State != Confirmed {
		t.Errorf("%+v, %v", res, err)
	}
	m.assertWhole(t, "reverted", oldProgram)
}

func TestKeep(t *testing.T) {
	for keep, want := range map[int]int{-1: 0, 0: 2, 1: 1, 3: 3} {
		m := newMachine(SwapRename, false)
		m.tweak = func(p *Program) { p.Target.Keep = keep }
		for _, c := range []string{"aaa", "bbb", "ccc", "ddd", "aaa", "bbb"} {
			if res, err := m.apply(strings.Repeat(c, 40)); err != nil || res.State != Confirmed {
				t.Fatalf("%+v, %v", res, err)
			}
		}
		kept, err := m.engine().Previous(m.program().Target)
		if err != nil || len(kept) != want || len(m.mem.list(memTargetDir)) != want+1 {
			t.Errorf("keep %d: kept %d, %v; %v", keep, len(kept), err, m.mem.list(memTargetDir))
		}
	}
}

// One previous version on a bad part of the disk, and a link that is none: neither stops
// later updates, nor a way back to the others.
func TestUnreadablePreviousVersions(t *testing.T) {
	m := newMachine(SwapRename, false)
	if res, err := m.apply("aaa"); err != nil || res.State != Confirmed {
		t.Fatalf("%+v, %v", res, err)
	}
	m.mem.symlink("/etc/passwd", memTargetDir+"/.acme.shoal-prev-7")
	m.proc.match = func(call string) bool { return call == "open .acme.shoal-prev-1" }
	m.proc.err = syscall.EIO
	for _, c := range []string{"bbb", "ccc"} {
		if res, err := m.apply(c); err != nil || res.State != Confirmed {
			t.Fatalf("%+v, %v", res, err)
		}
		m.assertTidy(t, c)
	}
	kept, err := m.engine().Previous(m.program().Target)
	if err != nil || len(kept) != 2 || kept[0].SHA256 != sum("bbb") || kept[1].SHA256 != sum("aaa") {
		t.Errorf("kept %+v, %v", kept, err)
	}
}

func TestStoppedServiceStaysStopped(t *testing.T) {
	m := newMachine(SwapRename, false)
	m.stopped, m.running = true, ""
	if res, err := m.apply(newProgram); err != nil || res.State != Confirmed || m.starts != 0 || m.running != "" {
		t.Errorf("%+v, %v; %d starts", res, err, m.starts)
	}
	m.assertWhole(t, "updated", newProgram)
}

// An update can be the cure for a program that keeps crashing.
func TestCrashedServiceIsStartedWithTheUpdate(t *testing.T) {
	m := newMachine(SwapRename, false)
	m.running, m.crashes[oldProgram] = "", true
	if res, err := m.apply(newProgram); err != nil || res.State != Confirmed || m.running != newProgram {
		t.Errorf("%+v, %v; %s runs", res, err, called(m.running))
	}
}

func TestBaseline(t *testing.T) {
	rows := []struct {
		name    string
		require bool
		stays   bool // up, though it is unwell
		want    State
		target  string
	}{
		{"old-was-unwell-too-and-new-stays-up", false, true, Confirmed, newProgram},
		{"old-was-unwell-too-and-new-crashes", false, false, Reverted, oldProgram},
		{"health-is-required", true, true, Reverted, oldProgram},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(SwapRename, false)
			m.sick[oldProgram], m.sick[newProgram] = true, true
			m.crashes[newProgram] = !r.stays
			m.tweak = func(p *Program) { p.RequireHealthy = r.require }
			res, err := m.apply(newProgram)
			if res.State != r.want || (err == nil) != (r.want == Confirmed) {
				t.Errorf("got %+v, %v; want %q", res, err, r.want)
			}
			m.assertWhole(t, "after", r.target)
			m.assertTidy(t, "after")
		})
	}
}

func TestAuthorizeIsAskedLastAndHeard(t *testing.T) {
	eachSwap(t, func(t *testing.T, swap string) {
		m := newMachine(swap, false)
		held := fault.New(fault.Held, "a hold came during the download")
		u := updateTo(newProgram)
		u.Authorize = func(context.Context) error {
			last := m.proc.trace[len(m.proc.trace)-1]
			staged := slices.ContainsFunc(m.mem.list(memTargetDir), func(n string) bool { return strings.HasSuffix(n, ".new") })
			if !staged || !strings.HasSuffix(last, ".new") {
				t.Errorf("asked after %q, beside the target is %v", last, m.mem.list(memTargetDir))
			}
			return held
		}
		res, err := m.engine().Apply(t.Context(), m.program(), u)
		if err != error(held) || res.State != Aborted {
			t.Errorf("got %+v, %v", res, err)
		}
		m.assertWhole(t, "refused", oldProgram)
		m.assertTidy(t, "refused")
		if m.starts != 0 || len(m.mem.list(memTargetDir)) != 1 {
			t.Errorf("something was done: %d starts, %v", m.starts, m.mem.list(memTargetDir))
		}
	})
}

func TestRefusedBeforeAnythingIsTouched(t *testing.T) {
	rows := []struct {
		name string
		set  func(*machine, *Program, *Update)
		want fault.Code
	}{
		{"setuid-mode-in-a-manifest", func(_ *machine, _ *Program, u *Update) { u.To.Mode = 0o4755 }, fault.Policy},
		{"not-executable", func(_ *machine, _ *Program, u *Update) { u.To.Mode = 0o644 }, fault.Policy},
		{"kind-unknown", func(_ *machine, p *Program, _ *Update) { p.Target.Kind = "image" }, fault.Policy},
		{"tree-at-a-file", func(_ *machine, p *Program, _ *Update) { p.Target.Kind = KindTree }, fault.UnsafePath},
		{"tree-by-selfupdate", func(_ *machine, p *Program, _ *Update) { p.Target.Kind, p.Target.Swap = KindTree, SwapSelfupdate }, fault.Config},
		{"installer-without-a-command", func(_ *machine, p *Program, _ *Update) { p.Target.Kind = KindInstaller }, fault.Config},
		{"unknown-swap", func(_ *machine, p *Program, _ *Update) { p.Target.Swap = "copy" }, fault.Config},
		{"relative-target", func(_ *machine, p *Program, _ *Update) { p.Target.Path = "acme" }, fault.Config},
		{"no-hash", func(_ *machine, _ *Program, u *Update) { u.To.SHA256 = [32]byte{} }, fault.Malformed},
		{"directory-writable-by-all", func(m *machine, _ *Program, _ *Update) { m.mem.dirs[memTargetDir].mode |= 0o002 }, fault.UnsafePath},
		{"sticky-directory-writable-by-all", func(m *machine, _ *Program, _ *Update) {
			m.mem.dirs[memTargetDir].mode |= 0o002 | fs.ModeSticky
		}, fault.UnsafePath},
		{"parent-writable-by-all", func(m *machine, _ *Program, _ *Update) { m.mem.dirs["/opt"].mode |= 0o002 }, fault.UnsafePath},
		{"directory-writable-by-a-group", func(m *machine, _ *Program, _ *Update) {
			m.mem.dirs[memTargetDir].mode |= 0o020
			m.mem.dirs[memTargetDir].gid = 54321
		}, fault.UnsafePath},
		{"directory-of-another-user", func(m *machine, _ *Program, _ *Update) { m.mem.dirs[memTargetDir].uid = 54321 }, fault.UnsafePath},
		{"parent-of-another-user", func(m *machine, _ *Program, _ *Update) { m.mem.dirs["/opt"].uid = 54321 }, fault.UnsafePath},
		{"no-space", func(m *machine, _ *Program, _ *Update) { m.mem.space.Bytes = 1 << 20 }, fault.NoSpace},
		{"no-inodes", func(m *machine, _ *Program, _ *Update) { m.mem.space.Files, m.mem.space.Inodes = 3, true }, fault.NoSpace},
		{"directory-is-not-there", func(_ *machine, p *Program, _ *Update) { p.Target.Path = "/opt/other/acme" }, fault.ApplyFailed},
		{"target-is-a-directory", func(_ *machine, p *Program, _ *Update) { p.Target.Path = memTargetDir }, fault.UnsafePath},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(SwapRename, false)
			p, u := m.program(), updateTo(newProgram)
			r.set(m, &p, &u)
			res, err := m.engine().Apply(t.Context(), p, u)
			wantCode(t, err, r.want)
			if res.State != Idle || len(m.states) > 0 || m.starts != 0 || m.checks != 0 {
				t.Errorf("got %+v; states %v, %d starts", res, m.states, m.starts)
			}
			m.assertWhole(t, "refused", oldProgram)
			m.assertTidy(t, "refused")
		})
	}
}

// Whoever can turn a link on the way to the program decides which file is replaced:
// another program's, with the rights that one has.
func TestLinksThatOthersCanTurn(t *testing.T) {
	rows := []struct {
		name string
		set  func(*machine)
		want fault.Code
	}{
		{"of-root", func(*machine) {}, fault.OK},
		{"in-a-directory-of-another-user", func(m *machine) {
			m.mem.dirs["/home/bob"].uid = 54321
			m.mem.dirs["/home/bob"].names["acme"].meta.UID = 54321
		}, fault.UnsafePath},
		{"in-a-directory-everybody-writes", func(m *machine) { m.mem.dirs["/home/bob"].mode |= 0o002 }, fault.UnsafePath},
		{"second-of-two", func(m *machine) { m.mem.dirs["/srv"].mode |= 0o002 }, fault.UnsafePath},
		// Whoever owns the program decides what it is anyway.
		{"of-the-program's-owner", func(m *machine) {
			m.mem.dirs["/home/bob"].uid = 54321
			m.mem.dirs[memTargetDir].uid = 54321
			m.mem.dirs[memTargetDir].names["acme"].meta.UID = 54321
		}, fault.OK},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(SwapRename, false)
			for _, dir := range []string{"/home", "/home/bob", "/srv"} {
				m.mem.dirs[dir] = newMemDir()
			}
			m.mem.symlink("/srv/acme", "/home/bob/acme")
			m.mem.symlink(memTarget, "/srv/acme")
			m.tweak = func(p *Program) { p.Target.Path = "/home/bob/acme" }
			r.set(m)
			_, err := m.apply(newProgram)
			if r.want == fault.OK {
				if err != nil || m.target() != newProgram {
					t.Errorf("installed is %s, %v", called(m.target()), err)
				}
				return
			}
			wantCode(t, err, r.want)
			m.assertWhole(t, "refused", oldProgram)
		})
	}
}

func TestDirectoriesThatAreSafeEnough(t *testing.T) {
	rows := []struct {
		name string
		set  func(*machine, *Program)
	}{
		{"sticky-parent", func(m *machine, _ *Program) { m.mem.dirs["/opt"].mode |= 0o022 | fs.ModeSticky }},
		{"writable-by-group-root", func(m *machine, _ *Program) { m.mem.dirs[memTargetDir].mode |= 0o020 }},
		{"accepted-by-the-operator", func(m *machine, p *Program) {
			m.mem.dirs[memTargetDir].mode |= 0o022
			p.Target.AllowInsecureDir = true
		}},
		// Whoever owns both decides what runs there anyway.
		{"program-and-directory-of-one-user", func(m *machine, p *Program) {
			m.mem.dirs[memTargetDir].uid = 54321
			m.mem.dirs[memTargetDir].names["acme"].meta.UID = 54321
		}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(SwapRename, false)
			p := m.program()
			r.set(m, &p)
			if res, err := m.engine().Apply(t.Context(), p, updateTo(newProgram)); err != nil || res.State != Confirmed {
				t.Errorf("%+v, %v", res, err)
			}
		})
	}
}

func TestWrongBytesAreNotStaged(t *testing.T) {
	rows := map[string]string{
		"other-bytes": strings.Repeat("x", len(newProgram)),
		"too-short":   newProgram[:len(newProgram)-1],
		"empty":       "",
	}
	for name, content := range rows {
		t.Run(name, func(t *testing.T) {
			m := newMachine(SwapRename, false)
			u := updateTo(newProgram)
			u.Source = strings.NewReader(content)
			res, err := m.engine().Apply(t.Context(), m.program(), u)
			wantCode(t, err, fault.ContentMismatch)
			if res.State != Aborted {
				t.Errorf("got %+v", res)
			}
			m.assertWhole(t, "refused", oldProgram)
			m.assertTidy(t, "refused")
		})
	}
	t.Run("more-than-was-signed-is-not-read", func(t *testing.T) {
		m := newMachine(SwapRename, false)
		u := updateTo(newProgram)
		u.Source = strings.NewReader(newProgram + "more")
		if res, err := m.engine().Apply(t.Context(), m.program(), u); err != nil || m.target() != newProgram {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

func TestSymlinkedTargetIsResolvedOnce(t *testing.T) {
	eachSwap(t, func(t *testing.T, swap string) {
		m := newMachine(swap, false)
		m.mem.dirs["/usr"], m.mem.dirs["/usr/bin"] = newMemDir(), newMemDir()
		m.mem.symlink(memTarget, "/usr/bin/acme")
		m.tweak = func(p *Program) { p.Target.Path = "/usr/bin/acme" }
		if res, err := m.apply(newProgram); err != nil || res.State != Confirmed {
			t.Fatalf("%+v, %v", res, err)
		}
		m.assertWhole(t, "behind the link", newProgram)
		if to, err := m.mem.Resolve("/usr/bin/acme"); to != memTarget || err != nil || len(m.mem.list("/usr/bin")) != 1 {
			t.Errorf("the link leads to %q, %v; beside it is %v", to, err, m.mem.list("/usr/bin"))
		}
	})
}

// The context of a person who presses Ctrl-C, or of a service that is stopped.
func TestInterruption(t *testing.T) {
	for _, at := range []State{Staged, Committing, Confirming, Reverting} {
		t.Run(string(at), func(t *testing.T) {
			m := newMachine(SwapRename, false)
			m.sick[newProgram] = at == Reverting
			ctx, cancel := context.WithCancel(t.Context())
			m.tweak = func(p *Program) {
				p.Progress = func(s State) {
					if s == at {
						cancel()
					}
				}
			}
			res, err := m.engine().Apply(ctx, m.program(), updateTo(newProgram))
			switch at {
			case Staged:
				wantCode(t, err, fault.Interrupted)
				m.assertWhole(t, "interrupted", oldProgram)
				m.assertTidy(t, "interrupted")
				if res.State != Aborted {
					t.Errorf("got %+v", res)
				}
				return
			case Reverting: // the old version is back even so
				m.assertWhole(t, "interrupted", oldProgram)
			default: // too late to turn back
				m.assertWhole(t, "interrupted", newProgram)
			}
			wantCode(t, err, fault.Interrupted)
			m.tweak = nil
			res, err = m.recover()
			want, content := Confirmed, newProgram
			if at == Reverting {
				want, content = Reverted, oldProgram
			}
			if res.State != want || (err == nil) != (want == Confirmed) || m.running != content {
				t.Errorf("recovered: %+v, %v; %s runs", res, err, called(m.running))
			}
			m.assertWhole(t, "recovered", content)
			m.assertTidy(t, "recovered")
		})
	}
}

func TestSomebodyElseChangesTheTarget(t *testing.T) {
	theirs := strings.Repeat("a package manager's ", 30)
	t.Run("before-the-swap", func(t *testing.T) {
		eachSwap(t, func(t *testing.T, swap string) {
			m := newMachine(swap, false)
			m.tweak = func(p *Program) {
				p.Progress = func(s State) {
					if s == Staged {
						m.mem.put(memTarget, theirs, oldMeta)
					}
				}
			}
			res, err := m.apply(newProgram)
			wantCode(t, err, fault.ApplyFailed)
			if res.State != Aborted {
				t.Errorf("got %+v, %v", res, err)
			}
			m.assertWhole(t, "changed", theirs)
			m.assertTidy(t, "changed")
		})
	})
	// To be authorized can take as long as a slow source does.
	t.Run("while-authorizing", func(t *testing.T) {
		eachSwap(t, func(t *testing.T, swap string) {
			m := newMachine(swap, false)
			u := updateTo(newProgram)
			u.Authorize = func(context.Context) error {
				m.mem.put(memTarget, theirs, oldMeta)
				return nil
			}
			res, err := m.engine().Apply(t.Context(), m.program(), u)
			wantCode(t, err, fault.ApplyFailed)
			if res.State != Aborted {
				t.Errorf("got %+v, %v", res, err)
			}
			m.assertWhole(t, "changed", theirs)
			m.assertTidy(t, "changed")
		})
	})
	t.Run("first-install-while-authorizing", func(t *testing.T) {
		eachSwap(t, func(t *testing.T, swap string) {
			m := newMachine(swap, true)
			u := updateTo(newProgram)
			u.Authorize = func(context.Context) error {
				m.mem.put(memTarget, theirs, Meta{Mode: 0o755})
				return nil
			}
			_, err := m.engine().Apply(t.Context(), m.program(), u)
			wantCode(t, err, fault.ApplyFailed)
			m.assertWhole(t, "changed", theirs)
		})
	})
	// After a crash in some state, the target is not as it was left.
	for _, left := range []State{Staged, Confirming, Reverting} {
		for _, content := range []string{theirs, oldProgram, newProgram, ""} {
			t.Run(string(left)+"-found-"+strings.Fields(called(content))[0], func(t *testing.T) {
				m := newMachine(SwapRename, false)
				m.sick[newProgram] = left == Reverting
				m.tweak = func(p *Program) {
					p.Progress = func(s State) { m.proc.dead = m.proc.dead || s == left }
				}
				m.apply(newProgram)
				m.newProcess()
				m.tweak = nil
				if content == "" {
					m.mem.Remove(memTarget)
				} else {
					m.mem.put(memTarget, content, oldMeta)
				}
				res, err := m.recover()
				var want string
				switch {
				case left == Reverting: // journal written before the restore: it was confirming on disk
					want = content
					if content == newProgram || content == "" {
						want = oldProgram
					}
				case content == "" && left == Staged:
					want = "" // nothing was backed up yet, so this was not our swap
				case content == "":
					want = oldProgram
				default:
					want = content
				}
				if got := m.target(); got != want {
					t.Errorf("the target is %s, want %s; %+v, %v", called(got), called(want), res, err)
				}
				m.assertTidy(t, "recovered")
				if res, err := m.recover(); res.State != Idle || err != nil {
					t.Errorf("second recovery: %+v, %v", res, err)
				}
			})
		}
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	m := newMachine(SwapRename, false)
	// The new version takes the machine down whenever it is started.
	deadly := func(p *Program) {
		p.Progress = func(s State) { m.proc.dead = m.proc.dead || s == Confirming }
	}
	m.tweak = deadly
	m.apply(newProgram)
	for n := 1; ; n++ {
		if n > 10 {
			t.Fatal("it is tried for ever")
		}
		next := *m
		m = next.reboot(powerCuts[1])
		m.tweak = deadly
		res, err := m.recover()
		if res.State == Reverted {
			wantCode(t, err, fault.Reverted)
			if n != defaultAttempts {
				t.Errorf("it was tried %d times", n)
			}
			break
		}
	}
	m.assertWhole(t, "given up", oldProgram)
	if failed, err := m.engine().Failed(m.program().Target, sum(newProgram), 0); !failed || err != nil {
		t.Errorf("not marked as failed: %v, %v", failed, err)
	}
}

func TestRecoveryOfConfirming(t *testing.T) {
	crashWhenRestarted := func(t *testing.T) *machine {
		m := newMachine(SwapRename, false)
		m.tweak = func(p *Program) { p.Health = &dyingHealth{machineHealth: (*machineHealth)(m)} }
		if _, err := m.apply(newProgram); err == nil {
			t.Fatal("no crash")
		}
		m.newProcess()
		m.tweak = nil
		if m.starts != 1 || m.running != newProgram {
			t.Fatalf("%d starts, %s runs", m.starts, called(m.running))
		}
		return m
	}
	rows := []struct {
		name   string
		set    func(*machine)
		starts int // more
		want   State
	}{
		{"same-boot-and-running-is-only-checked", func(m *machine) {}, 0, Confirmed},
		{"same-boot-but-restarted-by-somebody", func(m *machine) { m.starts++ }, 1, Confirmed},
		{"same-boot-but-not-running", func(m *machine) { m.running = "" }, 1, Confirmed},
		{"another-boot", func(m *machine) { m.boot = "boot-2" }, 1, Confirmed},
		{"clock-ten-years-ahead", func(m *machine) { m.now = m.now.AddDate(10, 0, 0) }, 0, Confirmed},
		{"clock-ten-years-back", func(m *machine) { m.now = m.now.AddDate(-10, 0, 0) }, 0, Confirmed},
		{"late-and-well", func(m *machine) { m.up += 2 * defaultWithin }, 0, Confirmed},
		{"late-and-unwell", func(m *machine) { m.up += 2 * defaultWithin; m.sick[newProgram] = true }, 1, Reverted},
		{"unwell", func(m *machine) { m.sick[newProgram] = true }, 1, Reverted},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := crashWhenRestarted(t)
			r.set(m)
			before := m.starts
			res, err := m.recover()
			if res.State != r.want || (err == nil) != (r.want == Confirmed) || m.starts-before != r.starts {
				t.Errorf("got %+v, %v after %d starts; want %q after %d", res, err, m.starts-before, r.want, r.starts)
			}
			m.assertTidy(t, "recovered")
		})
	}
}

// The agent died before it could start the new version, and comes back when the time for
// confirming it is over. What runs is the old version, and its health says nothing.
func TestWhatNeverRanIsNotConfirmed(t *testing.T) {
	m := newMachine(SwapRename, false)
	m.tweak = func(p *Program) {
		p.Progress = func(s State) { m.proc.dead = m.proc.dead || s == Confirming }
	}
	m.apply(newProgram)
	if m.target() != newProgram || m.running != oldProgram {
		t.Fatalf("installed is %s, running is %s", called(m.target()), called(m.running))
	}
	m.newProcess()
	m.tweak = nil
	m.up += 2 * defaultWithin
	if res, err := m.recover(); err != nil || res.State != Confirmed || m.running != newProgram {
		t.Errorf("%+v, %v; running is %s", res, err, called(m.running))
	}
	m.assertTidy(t, "recovered")
}

// dyingHealth kills the agent while it waits for the health check.
type dyingHealth struct{ *machineHealth }

func (h *dyingHealth) Check(context.Context) error {
	h.proc.dead = true
	return errDead
}

func TestConfirmWithin(t *testing.T) {
	m := newMachine(SwapRename, false)
	m.tweak = func(p *Program) {
		p.ConfirmWithin = time.Millisecond
		p.Health = &hangingHealth{machineHealth: (*machineHealth)(m)}
	}
	res, err := m.apply(newProgram)
	wantCode(t, err, fault.HealthFailed)
	if res.State != Reverted {
		t.Errorf("got %+v, %v", res, err)
	}
	m.assertWhole(t, "reverted", oldProgram)
}

// hangingHealth hangs with the new version.
type hangingHealth struct{ *machineHealth }

func (h *hangingHealth) Check(ctx context.Context) error {
	if h.running == newProgram {
		<-ctx.Done()
		return ctx.Err()
	}
	return h.machineHealth.Check(ctx)
}
