package state

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"shoal/manifest"
	"shoal/manifest/manifesttest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("STATE_TEST_WRITE"); dir != "" {
		write(dir)
		return
	}
	os.Exit(m.Run())
}

// write is the process that TestKilledAtAnyMoment kills: it accepts one manifest after
// the other and says which ones it has stored.
func write(dir string) {
	t := &exitOnFailure{}
	f := manifesttest.New(t)
	trust := f.Trust()
	s, err := Open(dir, filepath.Join(dir, "anchor.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	first := int64(1)
	if m.Known {
		if trust, _, err = manifest.Load(m.Snapshot, f.Options()); err != nil {
			t.Fatal(err)
		}
		first = m.Snapshot.State.Channels[manifesttest.Stable].Sequence + 1
	}
	for seq := first; seq < first+1000; seq++ {
		accept(t, trust, manifesttest.Stable, f.Manifest(manifesttest.Stable, seq))
		if err := s.Save(trust.Snapshot(), Local{Counters: map[string]int64{"report": seq}}); err != nil {
			t.Fatal(err)
		}
		fmt.Println(seq)
	}
}

// exitOnFailure lets a process that is no test use what is made for tests.
type exitOnFailure struct{ testing.TB }

func (exitOnFailure) Helper() {}
func (exitOnFailure) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	os.Exit(1)
}
func (t exitOnFailure) Fatalf(format string, args ...any) { t.Fatal(fmt.Sprintf(format, args...)) }

func TestKilledAtAnyMoment(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: starts and kills processes")
	}
	dir := t.TempDir()
	f := manifesttest.New(t)
	var stored int64 // the last that a process said it has stored
	for round := range 25 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "STATE_TEST_WRITE="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			seq, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			stored = seq
			if n == 2 {
				// At another point of the next save in every round.
				time.AfterFunc(time.Duration(round)*100*time.Microsecond, func() { cmd.Process.Kill() })
			}
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the writer ended by itself: %v", err)
		}
		s := open(t, dir)
		m := read(t, s)
		trust := load(t, m, f)
		if got := trust.Snapshot().State.Channels[manifesttest.Stable].Sequence; got < stored || !m.Known {
			t.Fatalf("round %d: sequence %d (known %v) after %d was stored", round, got, m.Known, stored)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
