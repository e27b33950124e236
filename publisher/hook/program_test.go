package hook

import (
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"shoal/publisher/fleet"
)

func TestAFailureHasWhatTheProgramSaid(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("skipped: it takes a shell")
	}
	s := newStore(t, t.TempDir())
	defer s.Close()
	c := Config{Exec: []string{"/bin/sh", "-c", "cat > /dev/null; echo chatter; echo 'no such queue' >&2; exit 3"}, On: []string{"*"}}
	h, err := New(Hooks{Store: s, Fleet: "sha256:x", Hooks: []Config{c}})
	if err != nil {
		t.Fatal(err)
	}
	err = h.try(t.Context(), &c, nil, &fleet.Event{Kind: "rollout.halted"})
	if want := `exit status 3: it said "no such queue"`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestWhatAProgramSaysIsBounded(t *testing.T) {
	for _, row := range []struct {
		name, want string
		said       []string
	}{
		{"nothing", "", nil},
		{"a-line", "no such queue", []string{"no such ", "queue\n"}},
		{"all-there-is-room-for", strings.Repeat("x", maxSaid), []string{strings.Repeat("x", maxSaid)}},
		{"more-in-one", "... " + strings.Repeat("y", maxSaid), []string{"x" + strings.Repeat("y", maxSaid)}},
		{"more-in-two", "... " + strings.Repeat("x", maxSaid-4) + "yyyy", []string{strings.Repeat("x", maxSaid), "yyyy"}},
		{"half-a-letter", "\uFFFD", []string{"\xe2\x82"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var said tail
			for _, s := range row.said {
				if n, err := said.Write([]byte(s)); n != len(s) || err != nil {
					t.Errorf("Write = %d, %v", n, err)
				}
			}
			if got := said.String(); got != row.want || cap(said.b) > 4*maxSaid {
				t.Errorf("%q in %d bytes, want %q", got, cap(said.b), row.want)
			}
		})
	}
}

// A hook may start what lives on, with the standard error it was given.
func TestAProgramMayLeaveSomethingRunning(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("skipped: it takes a shell")
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "sleep 5 & exit 0")
	cmd.WaitDelay = time.Millisecond
	if err := run(cmd, nil); err != nil {
		t.Error(err)
	}
}
