package main

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"shoal/cmd/shoal/demo"
)

func TestMain(m *testing.M) {
	if exe, err := os.Executable(); err == nil {
		beAgent(exe)
		if _, err := demo.ReadTrailer(exe); err == nil {
			main() // a copy of the test's executable that the demo runs as its program
		}
	}
	testscript.Main(m, map[string]func(){"shoal": main})
}

// TestScripts runs the stories in testdata/script against the program as a person
// has it: separate processes, real files, real sockets on loopback.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			for name, value := range apart(env.WorkDir) {
				env.Setenv(name, value)
			}
			env.Setenv("PLATFORM", runtime.GOOS+"/"+runtime.GOARCH)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":    exits,
			"waitfor":  waitFor,
			"until":    until,
			"freeport": freePort,
			"sha256":   sum,
			"fakeapp":  fakeApp,
			"login":    logIn,
		},
		RequireUniqueNames: true,
	})
}

// apart is the environment that keeps a story to its directory: nothing of the machine's
// own configuration reaches it, and nothing of it the machine's networks.
func apart(dir string) map[string]string {
	return map[string]string{
		"HOME":                      dir,
		"XDG_CONFIG_HOME":           filepath.Join(dir, "config"),
		"XDG_STATE_HOME":            filepath.Join(dir, "state"),
		"SHOAL_SOURCES_LAN_ENABLED": "false",
		"SHOAL_SERVE_LAN_ENABLED":   "false",
		"NO_PROXY":                  "*",
	}
}

// exits runs a program and checks its exit status: exits STATUS PROGRAM ARG...
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM ARG...")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("running %s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}

// waitDeadline bounds a wait: long enough for a loaded machine, since a story that waits for
// what never comes should still end.
const waitDeadline = 2 * time.Minute

// comes waits until there says so, and reports whether that was before waitDeadline.
func comes(there func() bool) bool {
	for deadline := time.Now().Add(waitDeadline); !there(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// waitFor waits until something is there:
//
//	waitfor url URL [REGEXP]    the URL answers 200, with a body like REGEXP
//	waitfor file PATH [REGEXP]  the file exists, with content like REGEXP
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: waitfor url|file WHAT [REGEXP]")
	}
	pattern := regexp.MustCompile("")
	if len(args) == 3 {
		pattern = regexp.MustCompile(args[2])
	}
	var last string
	if !comes(func() bool {
		body, err := look(ts, args[0], args[1])
		last = fmt.Sprintf("%q, %v", body, err)
		return err == nil && pattern.MatchString(body)
	}) {
		ts.Fatalf("waited in vain for %s %s: %s", args[0], args[1], last)
	}
}

// until runs a program again and again until what it prints is like REGEXP, of which the
// first group, if there is one, is then in $FOUND: until REGEXP PROGRAM ARG...
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP PROGRAM ARG...")
	}
	pattern := regexp.MustCompile(args[0])
	for deadline := time.Now().Add(waitDeadline); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if ts.Exec(args[1], args[2:]...) != nil {
			continue
		}
		if m := pattern.FindStringSubmatch(ts.ReadFile("stdout")); m != nil {
			if len(m) > 1 {
				ts.Setenv("FOUND", m[1])
			}
			return
		}
	}
	ts.Fatalf("waited in vain for %q from %q", args[0], args[1:])
}

func look(ts *testscript.TestScript, kind, what string) (string, error) {
	switch kind {
	case "url":
		// A fleet's own certificate is nothing a script could check.
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
		resp, err := client.Get(what)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %s", resp.Status)
		}
		return string(b), err
	case "file":
		b, err := os.ReadFile(ts.MkAbs(what))
		return string(b), err
	}
	ts.Fatalf("waitfor %s: not url or file", kind)
	return "", nil
}

// freePort sets a variable to a port that was free a moment ago: freeport NAME...
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		ts.Setenv(name, fmt.Sprint(unusedPort(ts.Check)))
	}
}

var lastPort atomic.Int32

// unusedPort returns a port of 127.0.0.1 that nobody listens on, and that is given out once.
// It is not one of those that connections are made from, or another test's may have it by the
// time it is used.
func unusedPort(check func(error)) int {
	lastPort.CompareAndSwap(0, int32(10_000+os.Getpid()*41%20_000))
	for tries := 0; ; tries++ {
		port := int(lastPort.Add(1))
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			l.Close()
			return port
		}
		if tries == 100 {
			check(err)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", unusedPort(func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}))
}

// sum sets a variable to the SHA-256 of a file: sha256 NAME FILE
func sum(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sha256 NAME FILE")
	}
	b, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	h := sha256.Sum256(b)
	ts.Setenv(args[0], hex.EncodeToString(h[:]))
}

// fakeApp writes a small program: fakeapp FILE VERSION [broken]. It prints its
// version with --version; with --self-check it succeeds, or fails when it is broken.
func fakeApp(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fakeapp FILE VERSION [broken]")
	}
	status := 0
	if len(args) > 2 && args[2] == "broken" {
		status = 3
	}
	text := fmt.Sprintf("#!/bin/sh\ncase \"$1\" in\n--version) echo %s;;\n--self-check) exit %d;;\nesac\n", args[1], status)
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, []byte(text), 0o755))
}
