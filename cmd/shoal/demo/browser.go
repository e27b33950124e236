package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"shoal/internal/control"
	"shoal/publisher/rollout"
)

// audienceBound is how long the new version waits for a page that was opened, so that
// nothing is missed there.
const audienceBound = 20 * time.Second

// seenFor is how long the page shows that everybody has the new version, before anything
// else happens there.
const seenFor = 8 * time.Second

// opener is the program that opens a link as the person's desktop does, and empty where
// there is no desktop.
func opener(goos string, getenv func(string) string) string {
	switch {
	case goos == "darwin":
		return "open"
	case getenv("DISPLAY") != "" || getenv("WAYLAND_DISPLAY") != "":
		return "xdg-open"
	}
	return ""
}

// browser is what opens a link. It may run for as long as the person's browser does, which
// is none of the demo's processes and outlives it.
type browser struct {
	done chan struct{} // closed when it has ended; err is set then
	err  error
}

// openPage has a link opened by a program in PATH. It returns nil where there is no desktop.
func openPage(url string) *browser {
	name := opener(runtime.GOOS, os.Getenv)
	if name == "" {
		return nil
	}
	b := &browser{done: make(chan struct{})}
	// Others on this computer may see the link in the list of processes: it lets in once,
	// to look at a demo.
	cmd := exec.Command(name, url)
	detach(cmd)
	if b.err = cmd.Start(); b.err != nil {
		close(b.done)
		return b
	}
	go func() { // ends with the program, or with this process
		defer close(b.done)
		b.err = cmd.Wait()
	}()
	return b
}

// failed is why the link could not be opened, as far as is known now.
func (b *browser) failed() error {
	if b == nil {
		return nil
	}
	select {
	case <-b.done:
		return b.err
	default:
		return nil
	}
}

// opened reports whether the fleet page was opened in a browser, as far as is known now.
func (f *fleet) opened() bool { return f.browser != nil && f.browser.failed() == nil }

// showPage says where the fleet page is.
func (f *fleet) showPage() {
	switch err := f.browser.failed(); {
	case f.page == "":
	case err != nil:
		f.say("  fleet page %s   open it now; the link is good for one login (no browser: %v)", f.page, err)
	case f.opened():
		f.say("  fleet page %s   opens in your browser; the link is good for one login", f.page)
	default:
		f.say("  fleet page %s   open it now; the link is good for one login", f.page)
	}
}

// audience waits, but not long, until somebody looks at the page that was opened.
func (f *fleet) audience(ctx context.Context) error {
	told := false
	err := until(ctx, audienceBound, func() (bool, error) {
		if !f.opened() {
			return true, nil
		}
		watchers, err := f.watchers(ctx)
		if watchers == 0 && !told {
			told = true
			f.say("  waiting    for you to log in there, %s at most", audienceBound)
		}
		return watchers > 0, err
	})
	if ctx.Err() != nil {
		return err
	}
	return nil // nobody looks; they can do so later
}

// seen waits, for somebody who looks at the page, until every machine has reported there
// that it has the new version, and then until that has been seen: reports follow what
// happened by a few seconds, and the page follows reports.
func (f *fleet) seen(ctx context.Context) error {
	var last rollout.Count
	err := until(ctx, bound, func() (bool, error) {
		if !f.opened() {
			return true, nil
		}
		var s rollout.Status
		err := f.must(ctx, &s, nil, "--config", f.publisher.config, "rollout", "status")
		last = s.Total
		return err == nil && s.Counted && last.Healthy == last.Target, err
	})
	if err != nil {
		return fmt.Errorf("waiting for the machines' reports (%d of %d): %w", last.Healthy, last.Target, err)
	}
	if !f.opened() {
		return nil
	}
	f.say("  fleet page every machine has told it by now; in %s somebody attacks this fleet", seenFor)
	select {
	case <-time.After(seenFor):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watchers is how many browsers follow the fleet page.
func (f *fleet) watchers(ctx context.Context) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := control.Dial(ctx, filepath.Dir(f.publisher.store), "publisher")
	if err != nil {
		return 0, err
	}
	return n, c.Do(ctx, "ui-watchers", nil, nil, &n)
}
