package publisher

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"golang.org/x/sys/unix"
)

// terminal runs a command on a terminal of its own, and returns what a person reads there.
func terminal(t *testing.T, cmd *exec.Cmd) *lockedBuffer {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("skipped: there are no terminals here: %v", err)
	}
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(ours.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 200})
	}
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	read := &lockedBuffer{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := ours.Read(b)
			read.Write(b[:n])
			if err != nil { // when the last one has closed it
				return
			}
		}
	}()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	t.Cleanup(func() {
		cmd.Process.Kill() // nothing, once it has ended
		<-done
		ours.Close()
	})
	return read
}

// The demo on a terminal of a desktop opens the fleet page by itself, waits until somebody
// looks, and shows the waves there from the first to the end, and the release that
// crashes, held at the canary. It stays up until Ctrl-C.
func TestLongWebDemo(t *testing.T) {
	c := browse(t)
	dir := t.TempDir()
	shoal, link := filepath.Join(dir, "shoal"), filepath.Join(dir, "link")
	if out, err := exec.Command("go", "build", "-o", shoal, "shoal/cmd/shoal").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// What a desktop opens links with: here it leaves them to us.
	script := "#!/bin/sh\nprintf %s \"$1\" > " + link + ".new && mv " + link + ".new " + link + "\n"
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "xdg-open"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	demo := func(args ...string) *exec.Cmd {
		cmd := exec.Command(shoal, append([]string{"demo", "--size", "1MB", "--dir", dir}, args...)...)
		cmd.Env = append(os.Environ(), "DISPLAY=:99", "TERM=xterm", "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
		return cmd
	}
	cmd := demo("--agents", "4")
	screen := terminal(t, cmd)
	slowly(t, "the page to be opened", func() bool { _, err := os.Stat(link); return err == nil })
	b, err := os.ReadFile(link)
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(string(b))
	if err != nil || to.Hostname() != "127.0.0.1" || to.Query().Get("once") == "" {
		t.Fatalf("it opens %q (%v)", b, err)
	}
	c.do(chromedp.Navigate(to.String()), chromedp.Click("form button", chromedp.ByQuery), chromedp.WaitVisible("#f-tiles", chromedp.ByQuery),
		chromedp.Evaluate(record, nil))
	var before, after float64
	c.do(chromedp.Evaluate(`performance.timeOrigin`, &before))
	if got := c.text(".who"); !strings.Contains(got, "viewer") {
		t.Errorf("it logs in %q", got)
	}
	slowly(t, "the release that crashes to be held", func() bool {
		return strings.Contains(c.text("#c-0"), "3.0.0") && strings.Contains(c.text("#c-0"), "held")
	})
	c.until("reverted", "#f-trouble") // every machine has the name of this computer
	c.shot("demo")
	var said []string
	c.do(chromedp.Evaluate(`performance.timeOrigin`, &after), chromedp.Evaluate(`said`, &said))
	if before != after {
		t.Error("the page was loaded again")
	}
	// What must have been seen, one after the other.
	steps := []struct {
		what string
		ok   func(canary, everyone row) bool
	}{
		{"wave 1 is open, and wave 2 waits", func(c, e row) bool {
			return c.Open && !e.Open && c.Healthy == "0/1" && e.Healthy == "0/2"
		}},
		{"wave 2 opens", func(c, e row) bool { return c.Open && e.Open && c.Healthy == "1/1" }},
		{"everyone has it", func(c, e row) bool {
			return c.Open && e.Open && c.Healthy == "1/1" && e.Healthy == "2/2"
		}},
		{"the next one is held at the canary", func(c, e row) bool { return c.Open && !e.Open && c.Healthy == "0/1" && e.Healthy == "0/2" }},
	}
	next := 0
	for _, text := range said {
		var rows []row
		if err := json.Unmarshal([]byte(text), &rows); err != nil {
			t.Fatal(err)
		}
		for next < len(steps) && len(rows) == 2 && steps[next].ok(rows[0], rows[1]) {
			next++
		}
	}
	if next < len(steps) {
		t.Errorf("the page did not show that %s: %q", steps[next].what, said)
	}
	c.calm("http://" + to.Host + "/")
	slowly(t, "the demo to say how it is left", func() bool { return strings.Contains(screen.String(), "End it with Ctrl-C") })
	if cmd.Process.Signal(os.Interrupt); cmd.Wait() != nil {
		t.Errorf("it ends with %s", cmd.ProcessState)
	}
	for _, words := range []string{"opens in your browser", "5 of 5 on 2.0.0", "crashes on start"} {
		if !strings.Contains(screen.String(), words) {
			t.Errorf("it does not say %q: %s", words, screen)
		}
	}

	// Who wants lines gets lines, and an end.
	os.Remove(link)
	cmd = demo("--agents", "1", "--plain")
	screen = terminal(t, cmd)
	if err := cmd.Wait(); err != nil {
		t.Errorf("--plain: %v: %s", err, screen)
	}
	// What it said last may be on the terminal still.
	until(t, "the demo to say that nothing is left", func() bool { return strings.Contains(screen.String(), "Everything was removed") })
	if _, err := os.Stat(link); err == nil {
		t.Error("--plain opens a browser")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "shoal-demo-*")); len(left) > 0 {
		t.Errorf("it left %q", left)
	}
}

// slowly is until for what takes a whole demo.
func slowly(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
