package apply

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"shoal/internal/fault"
)

// One call fails, and what has to become of it is known exactly.
func TestSingleFaults(t *testing.T) {
	staged := func(op string) func(string) bool {
		return func(call string) bool {
			return strings.HasPrefix(call, op+" .acme.shoal-") && strings.HasSuffix(call, ".new")
		}
	}
	exactly := func(want string, n int) func(string) bool {
		return func(call string) bool {
			if call == want {
				n--
			}
			return call == want && n == 0
		}
	}
	rows := []struct {
		name  string
		match func(string) bool
		err   error
		code  fault.Code
		state State
		text  string
	}{
		// minio/selfupdate's own staging reports success here: a write that was delayed
		// until Close, as on NFS or over quota, was lost.
		{"delayed-write-error-at-close", staged("close"), syscall.EIO, fault.ApplyFailed, Aborted, "staging the new version"},
		{"sync-fails", staged("sync"), syscall.EIO, fault.ApplyFailed, Aborted, "staging the new version"},
		{"disk-full-while-staging", staged("write"), syscall.ENOSPC, fault.NoSpace, Aborted, "no space left"},
		{"over-quota-while-staging", staged("write"), syscall.EDQUOT, fault.NoSpace, Aborted, "quota"},
		{"owner-cannot-be-kept", staged("setmeta"), syscall.EPERM, fault.Permission, Aborted, "cannot keep owner, mode and attributes"},
		{"directory-not-writable", staged("create"), syscall.EACCES, fault.Permission, Aborted, "permission denied"},
		{"read-only-file-system", staged("create"), syscall.EROFS, fault.Permission, Aborted, "read-only"},
		// A file that is mounted by itself, as into a container, cannot be linked or renamed.
		{"target-is-a-bind-mount", exactly("link .acme.shoal-prev-1", 1), syscall.EXDEV, fault.ApplyFailed, Aborted, "cross-device"},
		{"target-is-busy", exactly("rename acme", 1), syscall.EBUSY, fault.ApplyFailed, Aborted, "busy"},
		{"swap-not-durable", exactly("syncdir acme", 2), syscall.EIO, fault.ApplyFailed, Reverted, "could not be installed, so this machine is back on acme"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(SwapRename, false)
			m.proc.match, m.proc.err = r.match, r.err
			res, err := m.apply(newProgram)
			wantCode(t, err, r.code)
			if res.State != r.state || !strings.Contains(err.Error(), r.text) {
				t.Errorf("got %+v, %v; want %q, %q", res, err, r.state, r.text)
			}
			m.assertWhole(t, "after", oldProgram)
			m.assertTidy(t, "after")
			if m.starts != 0 {
				t.Error("the service was restarted, and nothing had changed")
			}
			if failed, err := m.engine().Failed(m.program().Target, sum(newProgram), 0); failed || err != nil {
				t.Errorf("the artifact was blamed: %v, %v", failed, err)
			}
		})
	}
}

func TestMountedFileIsExplained(t *testing.T) {
	m := newMachine(SwapRename, false)
	m.proc.match, m.proc.err = func(call string) bool { return call == "rename acme" }, syscall.EBUSY
	_, err := m.apply(newProgram)
	if !strings.Contains(why(err), "a mount point of its own") {
		t.Errorf("it says %q", why(err))
	}
}

// A previous version that is not what it was is worse than a bad new one.
func TestSpoiltBackupIsNotPutBack(t *testing.T) {
	m := newMachine(SwapRename, false)
	m.sick[newProgram] = true
	m.tweak = func(p *Program) {
		p.Progress = func(s State) {
			if s == Confirming {
				m.mem.put(memTargetDir+"/.acme.shoal-prev-1", "spoilt", oldMeta)
			}
		}
	}
	res, err := m.apply(newProgram)
	wantCode(t, err, fault.ApplyFailed)
	if res.State != Failed || !strings.Contains(why(err), "is spoilt") {
		t.Errorf("got %+v, %q", res, why(err))
	}
	m.assertWhole(t, "after", newProgram)
}

func TestOldVersionThatDoesNotStartIsFailed(t *testing.T) {
	m := newMachine(SwapRename, false)
	m.sick[newProgram] = true
	m.tweak = func(p *Program) {
		p.Progress = func(s State) { m.crashes[oldProgram] = m.crashes[oldProgram] || s == Confirming }
	}
	res, err := m.apply(newProgram)
	wantCode(t, err, fault.ApplyFailed)
	if res.State != Failed || !strings.Contains(why(err), "could not be restarted") {
		t.Errorf("got %+v, %q", res, why(err))
	}
	m.assertWhole(t, "after", oldProgram)
}

// The disk with the state is full for good, and the program's is not.
func TestBadVersionIsRevertedWithoutAJournal(t *testing.T) {
	m := newMachine(SwapRename, false)
	m.sick[newProgram] = true
	full := false
	m.proc.match, m.proc.err = func(call string) bool { return full && call == "create journal.tmp" }, syscall.ENOSPC
	m.tweak = func(p *Program) {
		p.Progress = func(s State) { full = full || s == Confirming }
	}
	res, err := m.apply(newProgram)
	wantCode(t, err, fault.HealthFailed)
	if res.State != Reverted || m.running != oldProgram {
		t.Errorf("got %+v; %s runs", res, called(m.running))
	}
	m.assertWhole(t, "after", oldProgram)
}

func TestUnreadableJournalStopsEverything(t *testing.T) {
	m := newMachine(SwapRename, false)
	m.tweak = func(p *Program) {
		p.Progress = func(s State) { m.proc.dead = m.proc.dead || s == Confirming }
	}
	m.apply(newProgram)
	m.newProcess()
	m.tweak = nil
	journal := m.engine().store(m.program().Target).journalPath()
	good, _, _ := m.mem.content(journal)
	for name, content := range map[string]string{
		"empty": "", "truncated": good[:len(good)/2], "one-bit": strings.Replace(good, `"attempts":1`, `"attempts":0`, 1),
	} {
		m.mem.put(journal, content, Meta{Mode: 0o600})
		starts := m.starts
		res, err := m.recover()
		wantCode(t, err, fault.ApplyFailed)
		_, aerr := m.apply(newProgram)
		wantCode(t, aerr, fault.ApplyFailed)
		var told *fault.Error
		if res.State != Failed || m.starts != starts || m.target() != newProgram ||
			!errors.As(err, &told) || !strings.Contains(strings.Join(told.Next, "\n"), journal) {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
	m.mem.put(journal, good, Meta{Mode: 0o600})
	if res, err := m.recover(); res.State != Confirmed || err != nil {
		t.Errorf("with the journal as it was: %+v, %v", res, err)
	}
}

func TestLeftoversWithoutAJournalAreRemoved(t *testing.T) {
	m := newMachine(SwapRename, false)
	for _, name := range []string{".acme.shoal-x.new", ".acme.shoal-x.old"} {
		m.mem.put(memTargetDir+"/"+name, "litter", Meta{})
	}
	foreign := []string{".acme.new", ".acme.old", ".acme.shoal-prev-1", ".acme.shoal-notes", ".acme2.shoal-x.new", "acme.new"}
	for _, name := range foreign {
		m.mem.put(memTargetDir+"/"+name, "not litter", Meta{})
	}
	if res, err := m.recover(); res.State != Idle || err != nil {
		t.Fatalf("%+v, %v", res, err)
	}
	if names := m.mem.list(memTargetDir); len(names) != len(foreign)+1 {
		t.Errorf("left: %v", names)
	}
	m.assertWhole(t, "after", oldProgram)
}

// What another program keeps under the name that CommitBinary insists on is not ours.
func TestForeignFileInTheWayIsKept(t *testing.T) {
	m := newMachine(SwapSelfupdate, false)
	m.mem.put(memTargetDir+"/.acme.new", "theirs", Meta{})
	for _, noLinks := range []bool{false, true} {
		m.mem.noLinks = noLinks
		res, err := m.apply(newProgram)
		wantCode(t, err, fault.ApplyFailed)
		if res.State != Aborted || !strings.Contains(err.Error(), "in the way") {
			t.Errorf("got %+v, %v", res, err)
		}
		if content, _, _ := m.mem.content(memTargetDir + "/.acme.new"); content != "theirs" {
			t.Errorf("it is %q now", content)
		}
	}
	m.assertWhole(t, "after", oldProgram)
}

func TestStagedFileIsLookedAtAgain(t *testing.T) {
	evil := strings.Repeat("evil program ", 50)
	plant := func(m *machine, content string) {
		for _, name := range m.mem.list(memTargetDir) {
			if strings.HasSuffix(name, ".new") {
				m.mem.put(memTargetDir+"/"+name, content, oldMeta)
			}
		}
	}
	rows := []struct {
		name string
		when State // when it is planted; Committing is after the last hash
		what string
	}{
		{"replaced-after-staging", Staged, evil},
		{"replaced-after-the-last-hash", Committing, evil},
		{"replaced-by-the-same-bytes", Committing, newProgram}, // of a file that is another user's
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			eachSwap(t, func(t *testing.T, swap string) {
				m := newMachine(swap, false)
				m.tweak = func(p *Program) {
					p.Progress = func(s State) {
						if s == Committing && r.when == Committing {
							plant(m, r.what)
						}
					}
				}
				if r.when == Staged {
					m.proc.match = func(call string) bool {
						if call == "link .acme.shoal-prev-1" {
							plant(m, r.what)
						}
						return false
					}
				}
				res, err := m.apply(newProgram)
				wantCode(t, err, fault.ContentMismatch)
				if res.State != Aborted {
					t.Errorf("got %+v", res)
				}
				m.assertWhole(t, "after", oldProgram)
				m.assertTidy(t, "after")
			})
		})
	}
}
