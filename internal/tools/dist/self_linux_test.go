package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// checkSelf publishes a release of shoal as an app with the shoal before it, and has an agent
// that runs the one before become the new one, by the steps of docs/self.md.
func checkSelf(t *testing.T, old, next, version string) {
	dir := t.TempDir()
	http, swarm := freePort(t, 0), freePort(t, 1)
	publisher := []string{"HOME=" + dir, "SHOAL_CONFIG=" + filepath.Join(dir, "pub", "publisher.yaml"), "NO_PROXY=*", "SHOAL_SERVE_LAN_ENABLED=false"}
	machine := []string{
		"HOME=" + dir, "SHOAL_CONFIG=" + filepath.Join(dir, "machine", "agent.yaml"), "SHOAL_STATE=" + filepath.Join(dir, "machine", "state"), "NO_PROXY=*",
		"SHOAL_SOURCES_LAN_ENABLED=false", "SHOAL_LISTEN=127.0.0.1:0", "SHOAL_DISK_RESERVE=0", "SHOAL_SETTLE=1s", "SHOAL_CHECK_EVERY=1s",
	}
	platform := "--platform=linux/" + runtime.GOARCH + "="
	command(t, dir, publisher, old, "init", "--app", "shoal", "--channel", "stable", "--dir", "pub", "--no-passphrase", "--public-url", "https://"+http)
	command(t, dir, publisher, old, "publish", "--version", "1.2.3-rc.1", platform+old)
	background(t, dir, publisher, old, "serve", "--listen", http, "--swarm", swarm)
	link := strings.TrimSpace(stdout(t, dir, publisher, old, "link", "create"))

	agent := filepath.Join(dir, "opt", "shoal", "shoal")
	command(t, dir, nil, "install", "-D", old, agent)
	until(t, "the publisher to serve", func() (bool, string) {
		cmd := exec.Command(agent, "agent", "join", link, "--fleet-key", filepath.Join("pub", "keys", "fleet"), "--target", agent)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), machine...)
		out, err := cmd.CombinedOutput()
		return err == nil, string(out)
	})
	pid := background(t, dir, machine, agent, "agent", "run")
	status := func(version string) {
		t.Helper()
		until(t, "an agent of "+version+" that is confirmed", func() (bool, string) {
			var s struct {
				Running bool   `json:"running"`
				PID     int    `json:"pid"`
				Version string `json:"agent_version"`
				Apps    []struct{ State, Version string }
			}
			cmd := exec.Command(agent, "agent", "status", "-o", "json")
			cmd.Dir, cmd.Env = dir, append(os.Environ(), machine...)
			out, _ := cmd.Output()
			err := json.Unmarshal(out, &s)
			return err == nil && s.Running && s.PID == pid && s.Version == version && len(s.Apps) == 1 &&
				s.Apps[0].State == "healthy" && s.Apps[0].Version == version, string(out)
		})
	}
	status("1.2.3-rc.1")

	command(t, dir, publisher, old, "publish", "--version", version, platform+next)
	status(version)
	want, err := os.ReadFile(next)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{agent, filepath.Join(filepath.Dir(agent), "guard"), fmt.Sprintf("/proc/%d/exe", pid)} {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not the new program: %d bytes, %v", path, len(got), err)
		}
	}
}

// freePort is the nth that nobody listens on. It is none of those that connections are made
// from: another process may have such a one by the time it is used.
func freePort(t *testing.T, n int) string {
	t.Helper()
	for port := 10_000 + os.Getpid()*41%20_000; ; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			l.Close()
			if n--; n < 0 {
				return l.Addr().String()
			}
		} else if port > 31_000 {
			t.Fatal(err)
		}
	}
}

func stdout(t *testing.T, dir string, env []string, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v", argv, err)
	}
	return string(out)
}

// background runs a program until the test ends, and returns its process id.
func background(t *testing.T, dir string, env []string, argv ...string) int {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			t.Logf("%q:\n%s", argv, log.Bytes())
		}
	})
	return cmd.Process.Pid
}

// until asks again and again until something is so; the second result of ok is how it is now.
func until(t *testing.T, what string, ok func() (bool, string)) {
	t.Helper()
	last := ""
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		is, now := ok()
		if is {
			return
		}
		last = now
	}
	t.Fatalf("waited in vain for %s; last was:\n%s", what, last)
}
