package demo

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPlainProgressIsRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b strings.Builder
		p := newProgress(&b, false, []string{"m1"}, 100e6)
		// 100 looks in 20 seconds, a percent each.
		for i := range 101 {
			p.show(view{name: "m1", state: "fetching", done: int64(i) * 1e6, total: 100e6, origin: int64(i) * 1e6})
			time.Sleep(200 * time.Millisecond)
		}
		for range 3 {
			p.show(view{name: "m1", done: 100e6, total: 100e6, origin: 60e6, peers: 40e6, confirmed: true, finalVersion: "2.0.0"})
		}
		p.end()
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if len(lines) != 5 {
			t.Errorf("%d lines in 20 s, want one per 5 s and one at the end:\n%s", len(lines), b.String())
		}
		want := "    m1  100.0/100.0 MB  origin 60.0  peers 40.0  confirmed 2.0.0 ✓"
		if got := lines[len(lines)-1]; strings.TrimSpace(got) != strings.TrimSpace(want) {
			t.Errorf("the last line is\n%s\nwant\n%s", got, want)
		}
		if strings.ContainsAny(b.String(), "\x1b\r") {
			t.Errorf("plain lines move the cursor: %q", b.String())
		}
	})
}

func TestBarsKeepWhatAMachineGotTo(t *testing.T) {
	var b strings.Builder
	p := newProgress(&b, true, []string{"m1", "m2"}, 100e6)
	p.show(view{name: "m1", done: 100e6, total: 100e6, origin: 100e6, confirmed: true, finalVersion: "2.0.0"})
	p.show(view{name: "m2", state: "fetching", done: 30e6, total: 100e6, peers: 30e6})
	p.end() // returns although m2 never got there
	for _, want := range []string{"confirmed 2.0.0", "m2", " 30.0/100.0 MB"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not on the screen: %q", want, b.String())
		}
	}
}
