package apply

import (
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"shoal/internal/fault"
)

// What would end an update is known before it begins, and said with what mends it.
func TestPreflight(t *testing.T) {
	failing := func(op string, err error) func(*machine, *Target) {
		return func(m *machine, _ *Target) {
			m.proc.match, m.proc.err = func(call string) bool {
				return strings.HasPrefix(call, op+" .acme.shoal-preflight-") && strings.HasSuffix(call, ".new")
			}, err
		}
	}
	size := int64(len(newProgram))
	rows := []struct {
		name string
		set  func(*machine, *Target)
		want fault.Code
		text string
	}{
		{"well", func(*machine, *Target) {}, fault.OK, ""},
		{"first-install", func(m *machine, t *Target) { t.Path += "-2" }, fault.OK, ""},
		{"first-install-refused", func(m *machine, t *Target) { t.Path += "-2"; t.AllowInstall = false }, fault.Policy, "set allow_install"},
		{"reached-by-a-link", func(m *machine, t *Target) {
			m.mem.dirs["/srv"] = newMemDir()
			m.mem.symlink(memTarget, "/srv/acme")
			t.Path = "/srv/acme"
		}, fault.OK, ""},
		{"no-directory", func(_ *machine, t *Target) { t.Path = "/opt/other/acme" }, fault.ApplyFailed, "mkdir -p /opt/other"},
		{"target-is-a-directory", func(_ *machine, t *Target) { t.Path = memTargetDir }, fault.UnsafePath, "only a regular file"},
		{"others-can-write", func(m *machine, _ *Target) { m.mem.dirs[memTargetDir].mode |= 0o002 }, fault.UnsafePath, "chmod go-w " + memTargetDir},
		{"others-can-write-and-that-is-accepted", func(m *machine, t *Target) {
			m.mem.dirs[memTargetDir].mode |= 0o002
			t.AllowInsecureDir = true
		}, fault.OK, ""},
		{"directory-not-writable", failing("create", syscall.EACCES), fault.Permission, "add ReadWritePaths=" + memTargetDir},
		{"read-only", failing("create", syscall.EROFS), fault.Permission, "read-only"},
		{"disk-full", failing("create", syscall.ENOSPC), fault.NoSpace, "free space"},
		{"owner-cannot-be-kept", failing("setmeta", syscall.EPERM), fault.Permission, "cannot keep owner, mode and attributes"},
		{"mounted-by-itself", failing("link", syscall.EXDEV), fault.ApplyFailed, "a mount point of its own"},
		{"no-second-names-and-room-for-both", func(m *machine, _ *Target) { m.mem.noLinks = true }, fault.OK, ""},
		{"no-second-names-and-room-for-one", func(m *machine, _ *Target) {
			m.mem.noLinks = true
			m.mem.space.Bytes = uint64(Room(size))
		}, fault.NoSpace, "not enough disk space"},
		{"room-for-one", func(m *machine, _ *Target) { m.mem.space.Bytes = uint64(Room(size)) }, fault.OK, ""},
		{"a-byte-too-little", func(m *machine, _ *Target) { m.mem.space.Bytes = uint64(Room(size)) - 1 }, fault.NoSpace, "not enough disk space"},
		{"no-inodes", func(m *machine, _ *Target) { m.mem.space.Files, m.mem.space.Inodes = spareInodes, true }, fault.NoSpace, "no free inodes"},
		{"another-agent-at-work", func(m *machine, _ *Target) { m.mem.locks[memTargetDir+"/.acme.shoal-lock"] = true }, fault.Locked, "another process"},
		{"kind-unknown", func(_ *machine, t *Target) { t.Kind = "image" }, fault.Policy, ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(SwapRename, false)
			m.mem.put(memTargetDir+"/.acme.shoal-lock", "", Meta{Mode: 0o600})
			target := m.program().Target
			r.set(m, &target)
			before := slices.Sorted(maps.Keys(m.mem.dirs[memTargetDir].names))
			err := m.engine().Preflight(target, Release{Length: size})
			wantCode(t, err, r.want)
			told := ""
			if f, ok := err.(*fault.Error); ok {
				told = strings.Join(append(append([]string{f.Message}, f.Detail...), f.Next...), "\n")
			}
			if !strings.Contains(told, r.text) {
				t.Errorf("it says %q, without %q", told, r.text)
			}
			if after := slices.Sorted(maps.Keys(m.mem.dirs[memTargetDir].names)); !slices.Equal(before, after) {
				t.Errorf("beside the target was %q and is %q", before, after)
			}
			if _, meta, _ := m.mem.content(memTarget); meta.Mode != oldMeta.Mode {
				t.Errorf("the program's mode became %v", meta.Mode)
			}
			if len(m.states) > 0 {
				t.Errorf("a transaction was begun: %v", m.states)
			}
		})
	}
}

// What a crash leaves of it is swept away.
func TestPreflightThatIsKilled(t *testing.T) {
	whole := newMachine(SwapRename, false)
	if err := whole.engine().Preflight(whole.program().Target, Release{Length: 1}); err != nil {
		t.Fatal(err)
	}
	for at := 1; at <= whole.proc.calls; at++ {
		m := newMachine(SwapRename, false)
		m.proc.at = at
		if err := m.engine().Preflight(m.program().Target, Release{Length: 1}); err == nil {
			t.Errorf("killed at call %d: no error", at)
		}
		m.newProcess()
		if res, err := m.engine().Recover(t.Context(), m.program()); res.State != Idle || err != nil {
			t.Errorf("killed at call %d: recovery: %+v, %v", at, res, err)
		}
		m.assertWhole(t, "after", oldProgram)
		m.assertTidy(t, "after")
	}
}
