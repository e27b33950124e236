package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestReadmeSession runs the session of the README word for word and compares what it
// prints; an ellipsis stands for what differs from run to run, alone on a line for any
// number of lines.
func TestReadmeSession(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the README's session is of a linux/amd64 machine")
	}
	runSession(t, "../../README.md", 8)
}

// The same of the page about rollouts.
func TestOperationsPage(t *testing.T) { runSession(t, "../../docs/operations.md", 12) }

func runSession(t *testing.T, page string, least int) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	steps := session(string(text))
	if len(steps) < least {
		t.Fatalf("found only %d commands in %s", len(steps), page)
	}
	const mark = "--- the session goes on ---"
	var script strings.Builder
	for i, s := range steps {
		script.WriteString(s.command + "\n")
		if strings.HasSuffix(s.command, "&") {
			// A person types the next command when the last one has said that it serves.
			script.WriteString("for i in $(seq 1200); do grep -q 'Stop: Ctrl-C' stdout && break; sleep 0.1; done\n")
		}
		if i < len(steps)-1 {
			script.WriteString("echo '" + mark + "'\n")
		}
	}
	// What serves has ports, and files in the directory: it ends before the session does.
	script.WriteString("last=$?; echo '" + mark + "'; kill $(jobs -p) 2> /dev/null; wait; exit $last\n")
	dir := t.TempDir()
	cmd := exec.Command("bash", "-c", script.String())
	cmd.Dir = dir
	cmd.Env = os.Environ()
	for name, value := range apart(dir) {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	talk, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer talk.Close()
	printed, err := os.Create(filepath.Join(dir, "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer printed.Close()
	cmd.Stdout, cmd.Stderr = printed, talk
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	runErr := cmd.Run()
	syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // where the session did not come to its end
	said, _ := os.ReadFile(talk.Name())
	if runErr != nil {
		t.Errorf("the session: %v", runErr)
	}
	all, err := os.ReadFile(printed.Name())
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(all), mark+"\n")
	for i, s := range steps {
		got := ""
		if i < len(parts) {
			got = parts[i]
		}
		if strings.HasSuffix(s.command, "&") {
			continue // it prints while the others run
		}
		if !pattern(s.output).MatchString(got) {
			t.Errorf("$ %s\nprinted:\n%s\n%s has:\n%s", s.command, got, page, s.output)
		}
	}
	if t.Failed() {
		t.Logf("standard error of the session:\n%s", said)
	}
}

type step struct{ command, output string }

// session returns the commands of the console blocks, each with what follows it.
func session(text string) (steps []step) {
	inside := false
	for _, line := range strings.Split(text, "\n") {
		switch command, isCommand := strings.CutPrefix(line, "$ "); {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case inside && isCommand:
			steps = append(steps, step{command: command})
		case inside && len(steps) > 0:
			steps[len(steps)-1].output += line + "\n"
		}
	}
	return steps
}

func pattern(output string) *regexp.Regexp {
	p := regexp.QuoteMeta(output)
	p = regexp.MustCompile(`(?m)^…\n`).ReplaceAllString(p, `(?s:.*)`)
	return regexp.MustCompile(`^` + strings.ReplaceAll(p, "…", ".*") + `$`)
}
