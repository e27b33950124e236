//go:build !windows

package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

func TestRun(t *testing.T) {
	t.Setenv("SHOAL_SECRET", "hunter2")
	rows := []struct {
		name   string
		argv   []string
		exit   int
		output string
		err    string // part of the error; empty means none
	}{
		{"success", sh("echo fine"), 0, "fine\n", ""},
		{"standard-error-is-kept-too", sh("echo a; echo b >&2"), 0, "a\nb\n", ""},
		{"exit-status-and-last-line", sh("echo reading; echo license.dat: no such file >&2; echo; exit 3"), 3,
			"reading\nlicense.dat: no such file\n\n", `exited 3: "license.dat: no such file"`},
		{"killed-by-a-signal", sh("kill -9 $$"), -1, "", "signal: killed"},
		{"no-such-program", []string{"/nonexistent/program"}, -1, "", "no such file"},
		{"empty", nil, -1, "", "empty"},
		{"own-secrets-are-not-passed-on", sh("echo [$SHOAL_SECRET] [$SHOAL_APP]"), 0, "[] [acme]\n", ""},
		{"no-input", sh("cat"), 0, "", ""},
		{"no-shell-reads-it", []string{"/bin/echo", "$(id)", ";", "ls"}, 0, "$(id) ; ls\n", ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			o, err := Run(t.Context(), Command{Argv: r.argv, Env: []string{"SHOAL_APP=acme"}, Timeout: time.Minute})
			if o.Exit != r.exit || o.Output != r.output {
				t.Errorf("exit %d, output %q; want %d, %q", o.Exit, o.Output, r.exit, r.output)
			}
			if (err == nil) != (r.err == "") || err != nil && !strings.Contains(err.Error(), r.err) {
				t.Errorf("error %v, want %q", err, r.err)
			}
		})
	}
}

func TestTimeoutKillsChildrenToo(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	script := fmt.Sprintf("sleep 600 & echo $! > %s.tmp; mv %s.tmp %s; echo still here; wait", pidFile, pidFile, pidFile)
	_, err := Run(t.Context(), Command{Argv: sh(script), Timeout: 2 * time.Second})
	if !errors.Is(err, errTimeout) || !strings.Contains(err.Error(), `timed out after 2s: "still here"`) {
		t.Errorf("error %v, want a timeout with the last line", err)
	}
	assertGone(t, pidFile)
}

func TestEndOfContextKillsChildrenToo(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	script := fmt.Sprintf("sleep 600 & echo $! > %s.tmp; mv %s.tmp %s; wait", pidFile, pidFile, pidFile)
	go func() {
		defer cancel()
		for {
			if _, err := os.Stat(pidFile); err == nil || ctx.Err() != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if _, err := Run(ctx, Command{Argv: sh(script), Timeout: time.Minute}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	assertGone(t, pidFile)
}

// assertGone waits for the process named in pidFile to end: its killing is already
// on the way, but init still has to reap it.
func assertGone(t *testing.T, pidFile string) {
	t.Helper()
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); alive(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("child %d is still alive", pid)
		}
	}
}

// alive reports whether pid runs; a zombie nobody reaps is dead.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return os.IsPermission(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestOutputFloodKeepsTheEnd(t *testing.T) {
	o, err := Run(t.Context(), Command{Argv: sh("i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done"), Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Output) != MaxOutput || !strings.HasSuffix(o.Output, "line 29999\n") {
		t.Errorf("kept %d bytes ending in %q", len(o.Output), o.Output[max(0, len(o.Output)-20):])
	}
}

func TestTailKeepsTheEndOfEveryPattern(t *testing.T) {
	for _, chunk := range []int{1, 1000, MaxOutput - 1, MaxOutput, MaxOutput + 1, 5 * MaxOutput} {
		var got tail
		var want []byte
		for i := 0; len(want) < 4*MaxOutput; i++ {
			p := []byte(strings.Repeat(string(rune('a'+i%26)), chunk))
			if n, err := got.Write(p); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
			want = append(want, p...)
		}
		if got.String() != string(want[len(want)-MaxOutput:]) {
			t.Errorf("chunks of %d: the end was not kept", chunk)
		}
		if got.buf.Len() > 2*MaxOutput {
			t.Errorf("chunks of %d: %d bytes held", chunk, got.buf.Len())
		}
	}
}

func TestCleanExitWithALingeringChildSucceeds(t *testing.T) {
	o, err := Run(t.Context(), Command{Argv: sh("sleep 3 & echo started"), Timeout: time.Minute})
	if err != nil || o.Output != "started\n" {
		t.Errorf("output %q, %v", o.Output, err)
	}
}

func TestLastLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "",
		"one":                            "one",
		"one\ntwo\n\n \n":                "two",
		"x\n" + strings.Repeat("é", 150): strings.Repeat("é", 100) + "…",
	} {
		if got := lastLine(in); got != want {
			t.Errorf("lastLine(%q) = %q, want %q", in, got, want)
		}
	}
}
