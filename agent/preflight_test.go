package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/agent/agenttest"
	"shoal/agent/apply"
	"shoal/internal/fault"
	"shoal/manifest"
)

// What would end the update ends it before the first byte: nothing is fetched, it is
// said, it stays said, and when it is mended the update goes on.
func TestPreflightBeforeADownload(t *testing.T) {
	rows := []struct {
		name  string
		spoil func(b *bench) (mend func())
		want  fault.Code
		state manifest.AppState
		next  string
	}{
		{"others-can-write", func(b *bench) func() {
			b.chmod(0o777)
			return func() { b.chmod(0o755) }
		}, fault.UnsafePath, manifest.StateWaiting, "chmod go-w"},
		{"no-room-in-the-cache", func(b *bench) func() {
			b.cfg.Disk.Reserve = 1 << 60
			return func() { b.cfg.Disk.Reserve = 0 }
		}, fault.NoSpace, manifest.StateWaiting, "free some space"},
		{"first-install-refused", func(b *bench) func() {
			if err := os.Remove(b.target); err != nil {
				b.t.Fatal(err)
			}
			b.cfg.Apps[0].RefuseInstall = true
			return func() { b.cfg.Apps[0].RefuseInstall = false }
		}, fault.Policy, manifest.StateBlocked, "set allow_install"},
		{"another-agent-at-work", func(b *bench) func() { return b.lock() }, fault.Locked, manifest.StateWaiting, "try again"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newBench(t)
			next := agenttest.Program("2", 0)
			b.Release(stable, 2, next)
			mend := r.spoil(b)
			before := b.Asked()
			u := b.update(Choice{})
			b.want(u, r.want, r.state)
			if u.Error == nil || !strings.Contains(strings.Join(u.Error.Next, "\n"), r.next) {
				t.Errorf("%+v does not say %q", u.Error, r.next)
			}
			if asked := b.Asked() - before; asked > 4 {
				t.Errorf("%d requests, so something was fetched", asked)
			}
			if u.Update == nil || u.Update.Bytes != (Bytes{}) {
				t.Errorf("update: %+v", u.Update)
			}
			mend()
			b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
			b.installed(next)
		})
	}
}

// A running agent says why it waits, whenever it is asked, and tries again by itself.
func TestPreflightIsTriedAgain(t *testing.T) {
	b := newBench(t)
	b.chmod(0o777)
	next := agenttest.Program("2", 0)
	b.Release(stable, 2, next)
	a := b.open()
	if _, err := a.Update(t.Context(), nil, Choice{}, true, nil); err != nil {
		t.Fatal(err)
	}
	a.do(t.Context(), func() {
		for range 2 {
			a.settle(a.apps[0], Choice{}) // as each status does
			if s := a.apps[0].status; s.State != manifest.StateWaiting || s.Why == nil || s.Why.Code != fault.UnsafePath || s.Why.Next == "" {
				t.Errorf("status %+v %+v", s, s.Why)
			}
		}
		if d := a.nextCheck(0); d != firstRetry {
			t.Errorf("next check in %s, want %s", d, firstRetry)
		}
	})
	if _, err := a.Update(t.Context(), nil, Choice{}, true, nil); err != nil {
		t.Fatal(err)
	}
	a.do(t.Context(), func() {
		if d := a.nextCheck(0); d != 2*firstRetry {
			t.Errorf("and then in %s, want %s", d, 2*firstRetry)
		}
	})
	a.Close()

	b.cfg.Check.Every = 2_000_000_000
	defer b.run()()
	b.until("a reason", func(s *AppStatus) bool {
		return s.Why != nil && s.Why.Code == fault.UnsafePath && s.State == manifest.StateWaiting
	})
	b.chmod(0o755)
	b.until("version 1.0.2", func(s *AppStatus) bool { return s.Version == "1.0.2" && s.State == manifest.StateHealthy })
	b.installed(next)
}

func TestPreflightAtJoin(t *testing.T) {
	rows := []struct {
		name  string
		spoil func(b *bench)
		want  fault.Code
	}{
		{"others-can-write", func(b *bench) { b.chmod(0o777) }, fault.UnsafePath},
		{"no-room", func(b *bench) { b.cfg.Disk.Reserve = 1 << 60 }, fault.NoSpace},
		{"first-install-refused", func(b *bench) {
			if err := os.Remove(b.target); err != nil {
				b.t.Fatal(err)
			}
			b.cfg.Apps[0].RefuseInstall = true
		}, fault.Policy},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newcomer(t)
			b.Release(stable, 2, agenttest.Program("2", 0))
			r.spoil(b)
			beside := b.beside()
			if j, err := Join(t.Context(), b.cfg, b.link()); fault.CodeOf(err) != r.want {
				t.Errorf("%+v, %v; want %s", j, err, r.want)
			}
			for _, path := range []string{b.cfg.JoinFile, b.cfg.StateDir} {
				if _, err := os.Lstat(path); err == nil {
					t.Errorf("%s was made", path)
				}
			}
			if now := b.beside(); now != beside {
				t.Errorf("beside the target is %s, was %s", now, beside)
			}
		})
	}
}

// A clock that nobody has set keeps no machine from joining, and is said.
func TestJoinWithTheClockBehind(t *testing.T) {
	b := newcomer(t)
	b.Release(stable, 2, b.old)
	b.Now = b.Now.AddDate(-40, 0, 0)
	j, err := Join(t.Context(), b.cfg, b.link())
	if err != nil || !strings.Contains(j.Note, "set the clock") {
		t.Errorf("%+v, %v; want a note", j, err)
	}
}

func TestNoSpace(t *testing.T) {
	dir := t.TempDir()
	short := fault.New(fault.NoSpace, "x").Fact("dir", dir).Fact("need", uint64(207_000_000)).Fact("have", uint64(96_000_000))
	err := noSpace(short, "acme 2.4.1", t.TempDir(), []Stored{{Bytes: 1_100_000_000}, {Bytes: 5, Wanted: true}}, 2)
	told := err.Error() + "\n" + detail(err) + "\n" + strings.Join(err.(*fault.Error).Next, "\n")
	for _, want := range []string{"not enough disk space for acme 2.4.1", dir + " needs 207 MB, has 96 MB", "holds 1.1 GB that can go",
		"shoal agent cache rm --unused", "or lower keep: (2 previous versions are kept)"} {
		if !strings.Contains(told, want) {
			t.Errorf("%q is missing in:\n%s", want, told)
		}
	}
}

func (b *bench) chmod(mode os.FileMode) {
	b.t.Helper()
	if err := os.Chmod(filepath.Dir(b.target), mode); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) beside() string {
	b.t.Helper()
	entries, err := os.ReadDir(filepath.Dir(b.target))
	if err != nil {
		b.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// lock has another agent, with a state of its own, at work on the target.
func (b *bench) lock() (unlock func()) {
	b.t.Helper()
	engine, err := apply.New(apply.Options{StateDir: b.t.TempDir()})
	if err != nil {
		b.t.Fatal(err)
	}
	other, err := b.cfg.Apps[0].program()
	if err != nil {
		b.t.Fatal(err)
	}
	locked, done, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	content := agenttest.Program("other", 0)
	path := filepath.Join(b.t.TempDir(), "other")
	if err := os.WriteFile(path, content, 0o755); err != nil {
		b.t.Fatal(err)
	}
	src, err := os.Open(path)
	if err != nil {
		b.t.Fatal(err)
	}
	go func() {
		defer close(ended)
		defer src.Close()
		engine.Apply(b.t.Context(), other, apply.Update{
			To: apply.Release{SHA256: manifest.Sum(content), Length: int64(len(content))}, Source: src,
			Authorize: func(context.Context) error { close(locked); <-done; return fault.New(fault.Held, "not now") },
		})
	}()
	<-locked
	return func() { close(done); <-ended }
}
