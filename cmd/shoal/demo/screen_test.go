package demo

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPlainProgressIsRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b strings.Builder
		p := newProgress(&b, false, []wave{{names: []string{"m1"}}}, 100e6)
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

func TestPlainProgressTellsWaveByWave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b strings.Builder
		waves := []wave{{title: "wave 1 canary", names: []string{"m1"}}, {title: "wave 2 everyone", names: []string{"m2"}, note: "m3  later"}}
		p := newProgress(&b, false, waves, 100e6)
		// The second is fetching from the beginning, ahead of its wave.
		for i := range 9 {
			at := int64(i) * 10e6
			p.show(view{name: "m2", state: "fetched ahead of its wave", ahead: true, done: at, total: 100e6})
			p.show(view{name: "m1", state: "downloading", done: at, total: 100e6, origin: at})
			time.Sleep(plainEvery / 2)
		}
		for _, name := range []string{"m1", "m2", "m2"} {
			p.show(view{name: name, done: 100e6, total: 100e6, origin: 60e6, peers: 40e6, confirmed: true, finalVersion: "2.0.0"})
		}
		p.end()
		var got []string
		for line := range strings.Lines(b.String()) {
			if line = strings.TrimSpace(line); !strings.Contains(line, "downloading") {
				got = append(got, line)
			}
		}
		const done = "  100.0/100.0 MB  origin 60.0  peers 40.0  confirmed 2.0.0 ✓"
		want := []string{"wave 1 canary", "m1" + done, "wave 2 everyone", "m2" + done, "m3  later"}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if !strings.Contains(b.String(), "downloading") {
			t.Errorf("it does not tell how the canary goes on:\n%s", b.String())
		}
	})
}

func TestBarsKeepWhatAMachineGotTo(t *testing.T) {
	var b strings.Builder
	p := newProgress(&b, true, []wave{{title: "wave 1 canary", names: []string{"m1"}}, {title: "wave 2 everyone", names: []string{"m2"}, note: "m3  later"}}, 100e6)
	p.show(view{name: "m1", done: 100e6, total: 100e6, origin: 100e6, confirmed: true, finalVersion: "2.0.0"})
	p.show(view{name: "m2", state: "fetching", done: 30e6, total: 100e6, peers: 30e6})
	p.end() // returns although m2 never got there
	for _, want := range []string{"  wave 1 canary", "confirmed 2.0.0", "  wave 2 everyone", "m2", " 30.0/100.0 MB", "    m3  later"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not on the screen: %q", want, b.String())
		}
	}
}
