package demo

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// Without a terminal a machine's progress is one line per this much time or tenth of
// the whole, whichever is rarer, and one at the end.
const plainEvery = 5 * time.Second

// view is what is shown of one machine while it updates.
type view struct {
	name         string
	state        string // the agent's word: fetching, staged, ...
	done, total  int64
	origin       int64
	peers        int64
	confirmed    bool
	finalVersion string
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f", float64(n)/1e6) }

// numbers is the part of a view that is the same on every screen.
func (v view) numbers() string {
	s := fmt.Sprintf("%4s/%s MB  origin %4s  peers %4s", megabytes(v.done), megabytes(v.total), megabytes(v.origin), megabytes(v.peers))
	if v.confirmed {
		return s + "  confirmed " + v.finalVersion + " ✓"
	}
	return s + "  " + v.state
}

// progress shows how the machines' updates go on; show may be called until end.
type progress interface {
	show(v view)
	end()
}

// newProgress returns bars on a terminal, else plain lines.
func newProgress(w io.Writer, fancy bool, names []string, total int64) progress {
	if !fancy {
		return &plainProgress{w: w, last: map[string]shown{}}
	}
	b := &bars{p: mpb.New(mpb.WithOutput(w), mpb.WithAutoRefresh(), mpb.WithRefreshRate(100*time.Millisecond)), machines: map[string]*bar{}}
	style := mpb.BarStyle().Lbound("").Rbound("").Filler("█").Tip("▌").Padding("░")
	for _, name := range names {
		m := &bar{}
		m.seen.Store(&view{name: name, total: total, state: "waiting"})
		// A total of 0 keeps the bar alive when all bytes are there: the machine is not
		// done before the new version is confirmed.
		m.bar = b.p.New(0, style, mpb.BarWidth(14),
			mpb.PrependDecorators(decor.Name("    "+name+" ")),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + m.seen.Load().numbers() })))
		m.bar.SetTotal(max(total, 1), false)
		b.machines[name] = m
	}
	return b
}

type bars struct {
	p        *mpb.Progress
	machines map[string]*bar
}

type bar struct {
	bar  *mpb.Bar
	seen atomic.Pointer[view]
}

func (b *bars) show(v view) {
	m := b.machines[v.name]
	m.seen.Store(&v)
	m.bar.SetCurrent(v.done)
	if v.confirmed {
		m.bar.SetTotal(-1, true)
	}
}

// end leaves the bars as they are, those of machines that did not get there too.
func (b *bars) end() {
	for _, m := range b.machines {
		m.bar.Abort(false) // nothing for a completed one
	}
	b.p.Wait()
}

type plainProgress struct {
	w    io.Writer
	last map[string]shown
}

type shown struct {
	at        time.Time
	tenth     int64
	confirmed bool
}

func (p *plainProgress) show(v view) {
	last, seen := p.last[v.name]
	now := shown{at: time.Now(), confirmed: v.confirmed}
	if v.total > 0 {
		now.tenth = v.done * 10 / v.total
	}
	news := v.confirmed != last.confirmed || seen && now.tenth != last.tenth && now.at.Sub(last.at) >= plainEvery
	if !seen {
		p.last[v.name] = now // the time runs from the first look
	}
	if news {
		p.last[v.name] = now
		fmt.Fprintf(p.w, "    %s  %s\n", v.name, v.numbers())
	}
}

func (p *plainProgress) end() {}
