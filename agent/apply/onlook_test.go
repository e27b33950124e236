package apply

import (
	"strings"
	"testing"
	"time"
)

// timedFS tells times of files, as memFS does not.
type timedFS struct {
	*faultFS
	changed int64
}

func (f *timedFS) Lstat(path string) (Info, error) {
	i, err := f.faultFS.Lstat(path)
	i.Modified, i.Changed = f.changed, f.changed
	return i, err
}

func (f *timedFS) reads() int {
	n := 0
	for _, call := range f.trace {
		if strings.HasPrefix(call, "read acme") || strings.HasPrefix(call, "read .acme.shoal-prev") {
			n++
		}
	}
	f.trace = nil
	return n
}

func TestOnlookersHashOnce(t *testing.T) {
	m := newMachine(SwapRename, false)
	if _, err := m.apply(newProgram); err != nil {
		t.Fatal(err)
	}
	f := &timedFS{faultFS: m.proc, changed: m.now.Add(-time.Hour).UnixNano()}
	e := m.engine()
	e.o.FS = f
	look := func() (string, string) {
		t.Helper()
		in, err := e.Installed(m.program().Target)
		if err != nil {
			t.Fatal(err)
		}
		previous, err := e.Previous(m.program().Target)
		if err != nil || len(previous) != 1 {
			t.Fatalf("%v, %v", previous, err)
		}
		return digest(in.SHA256).String(), digest(previous[0].SHA256).String()
	}
	now, before := look()
	if now != digest(sum(newProgram)).String() || before != digest(sum(oldProgram)).String() || f.reads() == 0 {
		t.Errorf("%s, %s", now, before)
	}
	if again, _ := look(); again != now || f.reads() != 0 {
		t.Error("hashed again, and nothing has changed")
	}
	// What has changed is hashed; until its times are old enough each time.
	m.mem.put(memTarget, "something else", oldMeta)
	f.changed = m.now.Add(-time.Second).UnixNano()
	for range 2 {
		if got, _ := look(); got != digest(sum("something else")).String() || f.reads() == 0 {
			t.Error("a changed file was not hashed")
		}
	}
}

// What is remembered is for those who only look: nothing is decided by it.
func TestUpdatesNeverGoByRememberedHashes(t *testing.T) {
	m := newMachine(SwapRename, false)
	f := &timedFS{faultFS: m.proc, changed: m.now.Add(-time.Hour).UnixNano()}
	e := m.engine()
	e.o.FS = f
	if _, err := e.Installed(m.program().Target); err != nil {
		t.Fatal(err)
	}
	// Changed behind its back: same file, same length, same times.
	other := strings.ToUpper(oldProgram)
	m.mem.dirs[memTargetDir].names["acme"].content = []byte(other)
	if in, err := e.Installed(m.program().Target); err != nil || in.SHA256 != sum(oldProgram) {
		t.Fatalf("this test needs a stale hash: %+v, %v", in, err)
	}
	res, err := e.Apply(t.Context(), m.program(), updateTo(newProgram))
	if err != nil || res.From.SHA256 != sum(other) {
		t.Errorf("%+v, %v", res, err)
	}
}
