package main

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/cmd/shoal/internal/agentcmd/selfcmd"
)

// What a version of the agent does, besides being one. The first three are no agents in
// any way; the others pass their trial.
const (
	justExits   = "exits"        // with 1, whatever it is asked
	panics      = "panics"       // likewise
	good        = "good"         // nothing else
	exitsAtRun  = "exits-at-run" // before it counts its start
	hangsAtRun  = "hangs-at-run" // once it has counted its start
	diesWhenRun = "dies-later"   // kills itself, before it is confirmed
)

// agentMark ends a copy of the test's executable that is a version of the agent: loaders
// ignore what follows a program.
const (
	agentMark = "\nshoal-agent-of-a-test:"
	markSize  = 64
)

// agentVersion returns a version of the agent.
func agentVersion(t *testing.T, does, version string) []byte {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	mark := agentMark + does + ":" + version + ":"
	return append(b, mark+strings.Repeat(".", markSize-len(mark))...)
}

// beAgent makes this process what its executable is marked as; it returns if it is not.
func beAgent(exe string) {
	f, err := os.Open(exe)
	if err != nil {
		return
	}
	defer f.Close()
	b := make([]byte, markSize)
	if end, err := f.Seek(-markSize, io.SeekEnd); err != nil || end < 0 {
		return
	}
	if _, err := io.ReadFull(f, b); err != nil || !bytes.HasPrefix(b, []byte(agentMark)) {
		return
	}
	does, _, _ := strings.Cut(string(b[len(agentMark):]), ":")
	running := slices.Contains(os.Args, "run")
	switch {
	case does == panics:
		panic("as in an init function")
	case does == justExits, does == exitsAtRun && running:
		os.Exit(1)
	case does == hangsAtRun && running:
		selfcmd.Start(os.Args[1:])
		time.Sleep(time.Hour)
	case does == diesWhenRun && running:
		time.AfterFunc(3*time.Second, func() { // when its start is counted, however busy the machine is
			if p, err := os.FindProcess(os.Getpid()); err == nil {
				p.Kill()
			}
		})
	}
	main()
	os.Exit(0)
}
