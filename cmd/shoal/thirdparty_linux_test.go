package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// The two releases of somebody else's program, and where its source is.
const (
	thirdParty    = "github.com/caddyserver/caddy/v2/cmd/caddy"
	thirdPartyOld = "2.9.0"
	thirdPartyNew = "2.9.1"
)

// TestLongThirdPartyProgram takes a web server that knows nothing of Shoal from one of its
// released versions to the next while it runs: built from the module proxy, published,
// followed by a running agent, restarted and confirmed by asking it over HTTP.
func TestLongThirdPartyProgram(t *testing.T) {
	if os.Getenv("SHOAL_LONG") == "" {
		t.Skip("builds a web server twice; set SHOAL_LONG=1, or run make test-long")
	}
	dir := t.TempDir()
	older, newer := buildThirdParty(t, dir, thirdPartyOld), buildThirdParty(t, dir, thirdPartyNew)
	web, origin, swarm := freeAddress(t), freeAddress(t), freeAddress(t)

	s := &thirdPartySite{t: t, dir: dir, pid: filepath.Join(dir, "caddy.pid"), target: filepath.Join(dir, "opt", "caddy")}
	s.write("www/index.html", "hello from caddy\n", 0o644)
	s.write("opt/.keep", "", 0o644)
	// What an operator's own start script does; a unit of the system would be the same.
	s.write("ctl", fmt.Sprintf(`#!/bin/sh
case $1 in
start) setsid %[1]s file-server --listen %[2]s --root %[3]s >>%[4]s 2>&1 </dev/null & echo $! >%[5]s ;;
stop) kill $(cat %[5]s) 2>/dev/null; while kill -0 $(cat %[5]s) 2>/dev/null; do sleep 0.05; done; rm -f %[5]s ;;
restart) "$0" stop 2>/dev/null; "$0" start ;;
status) kill -0 $(cat %[5]s) 2>/dev/null ;;
esac
`, s.target, web, filepath.Join(dir, "www"), filepath.Join(dir, "caddy.log"), s.pid), 0o755)
	t.Cleanup(func() { exec.Command(filepath.Join(dir, "ctl"), "stop").Run() })

	publisher := filepath.Join(dir, "pub", "publisher.yaml")
	s.shoal("init", "--app", "caddy", "--channel", "stable", "--dir", filepath.Join(dir, "pub"), "--no-passphrase", "--no-fleet-key", "--public-url", "http://"+origin)
	s.shoal("--config", publisher, "publish", "--version", thirdPartyOld, "--platform", platformOfThisMachine()+"="+older)
	s.start("--config", publisher, "serve", "--listen", origin, "--swarm", swarm)
	s.wait("the publisher to serve", func() bool { return answers("http://" + origin + "/root/000001.json") })
	link := strings.TrimSpace(s.shoal("--config", publisher, "link", "create", "--channel", "stable"))

	config, state := filepath.Join(dir, "agent.yaml"), filepath.Join(dir, "state")
	s.shoal("--config", config, "--state", state, "agent", "join", link, "--target", s.target)
	joined, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	ctl := filepath.Join(dir, "ctl")
	s.write("agent.yaml", string(joined)+fmt.Sprintf(`    service: {command: {start: [%[1]s, start], stop: [%[1]s, stop], restart: [%[1]s, restart], status: [%[1]s, status]}}
    health: {type: http, url: "http://%[2]s/", successes: 2, interval: 200ms, timeout: 30s}
listen: "127.0.0.1:0"
check: {every: 1s}
`, ctl, web), 0o644)
	s.shoal("--config", config, "--state", state, "agent", "update") // a first install starts it
	s.wait("the first version to answer", func() bool { return answers("http://" + web + "/") })
	if !s.runs(older) {
		t.Fatalf("running is not %s", thirdPartyOld)
	}

	s.start("--config", config, "--state", state, "agent", "run")
	s.shoal("--config", publisher, "publish", "--version", thirdPartyNew, "--platform", platformOfThisMachine()+"="+newer)
	s.wait("the new version to be confirmed", func() bool {
		out, err := exec.Command("shoal", "--config", config, "--state", state, "agent", "status", "-o", "json").Output()
		return err == nil && confirmed(out, thirdPartyNew)
	})
	if !s.runs(newer) {
		t.Errorf("running is not %s", thirdPartyNew)
	}
	if !answers("http://" + web + "/") {
		t.Error("the new version does not answer")
	}
}

// confirmed reports whether a status says that a version is healthy, wherever in the
// document the app stands.
func confirmed(status []byte, version string) bool {
	var doc struct {
		Apps []struct{ State, Version string }
	}
	return json.Unmarshal(status, &doc) == nil && len(doc.Apps) == 1 &&
		doc.Apps[0].State == "healthy" && doc.Apps[0].Version == version
}

type thirdPartySite struct {
	t                *testing.T
	dir, pid, target string
}

func (s *thirdPartySite) write(name, content string, perm os.FileMode) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), perm); err != nil {
		s.t.Fatal(err)
	}
}

// shoal runs a command to its end.
func (s *thirdPartySite) shoal(args ...string) string {
	s.t.Helper()
	var out, talk bytes.Buffer
	cmd := exec.Command("shoal", args...)
	cmd.Stdout, cmd.Stderr = &out, &talk
	if err := cmd.Run(); err != nil {
		s.t.Fatalf("shoal %v: %v\n%s%s", args, err, out.String(), talk.String())
	}
	return out.String()
}

// start runs a command that goes on until the test ends.
func (s *thirdPartySite) start(args ...string) {
	s.t.Helper()
	log, err := os.Create(filepath.Join(s.dir, args[len(args)-1]+".log"))
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command("shoal", args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		log.Close()
		if s.t.Failed() {
			said, _ := os.ReadFile(log.Name())
			s.t.Logf("shoal %v said:\n%s", args, said)
		}
	})
}

func (s *thirdPartySite) wait(what string, there func() bool) {
	s.t.Helper()
	if !comes(there) {
		s.t.Fatalf("waited in vain for %s", what)
	}
}

// runs reports whether the program that is running now, not the file it came from, has
// the content of a file.
func (s *thirdPartySite) runs(file string) bool {
	s.t.Helper()
	pid, err := os.ReadFile(s.pid)
	if err != nil {
		s.t.Fatal(err)
	}
	running, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/exe")
	if err != nil {
		s.t.Fatal(err)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	return bytes.Equal(running, want)
}

func buildThirdParty(t *testing.T, dir, version string) string {
	t.Helper()
	bin := filepath.Join(dir, "build-"+version)
	cmd := exec.Command("go", "install", "-trimpath", "-ldflags", "-s -w", thirdParty+"@v"+version)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building version %s: %v\n%s", version, err, out)
	}
	return filepath.Join(bin, "caddy")
}

func platformOfThisMachine() string { return runtime.GOOS + "/" + runtime.GOARCH }

func answers(url string) bool {
	resp, err := http.Get(url)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
