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

// wave is what is shown together.
type wave struct {
	title string   // empty for none
	names []string // of its machines
	note  string   // a line after theirs; empty for none
}

// view is what is shown of one machine while it updates.
type view struct {
	name         string
	state        string // the agent's word: downloading, staged, ...
	done, total  int64
	ahead        bool // of its wave: where bytes came from is told at the end
	origin       int64
	peers        int64
	confirmed    bool
	finalVersion string
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f", float64(n)/1e6) }

// numbers is the part of a view that is the same on every screen.
func (v view) numbers() string {
	s := fmt.Sprintf("%4s/%s MB", megabytes(v.done), megabytes(v.total))
	if v.ahead {
		return s + "  " + v.state
	}
	s += fmt.Sprintf("  origin %4s  peers %4s", megabytes(v.origin), megabytes(v.peers))
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
func newProgress(w io.Writer, fancy bool, waves []wave, total int64) progress {
	if !fancy {
		p := &plainProgress{w: w, waves: waves, of: map[string]int{}, last: map[string]shown{}}
		for i, wave := range waves {
			p.left = append(p.left, len(wave.names))
			for _, name := range wave.names {
				p.of[name] = i
			}
		}
		return p
	}
	b := &bars{p: mpb.New(mpb.WithOutput(w), mpb.WithAutoRefresh(), mpb.WithRefreshRate(100*time.Millisecond)), machines: map[string]*bar{}}
	style := mpb.BarStyle().Lbound("").Rbound("").Filler("█").Tip("▌").Padding("░")
	for _, wave := range waves {
		b.line("  ", wave.title)
		for _, name := range wave.names {
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
		b.line("    ", wave.note)
	}
	return b
}

type bars struct {
	p        *mpb.Progress
	machines map[string]*bar
	lines    []*mpb.Bar
}

// line puts a text among the bars, unless it is empty.
func (b *bars) line(indent, text string) {
	if text != "" {
		b.lines = append(b.lines, b.p.New(0, mpb.NopStyle(), mpb.PrependDecorators(decor.Name(indent+text))))
	}
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
	for _, l := range b.lines {
		l.Abort(false)
	}
	b.p.Wait()
}

type plainProgress struct {
	w     io.Writer
	waves []wave
	of    map[string]int // the wave of a machine
	left  []int          // machines of a wave that are not confirmed
	begun int            // waves whose title is written
	last  map[string]shown
}

type shown struct {
	at        time.Time
	tenth     int64
	confirmed bool
}

func (p *plainProgress) show(v view) {
	n := p.of[v.name]
	if !v.confirmed && p.early(n) {
		return // what it does ahead of its wave is not told among those before
	}
	last, seen := p.last[v.name]
	now := shown{at: time.Now(), confirmed: v.confirmed}
	if v.total > 0 {
		now.tenth = v.done * 10 / v.total
	}
	if !seen {
		p.last[v.name] = now // the time runs from the first look
	}
	if v.confirmed != last.confirmed || seen && now.tenth != last.tenth && now.at.Sub(last.at) >= plainEvery {
		p.last[v.name] = now
		p.begin(n)
		fmt.Fprintf(p.w, "    %s  %s\n", v.name, v.numbers())
	}
	if v.confirmed && !last.confirmed {
		p.left[n]--
	}
}

// early reports whether a wave before n has machines that are not confirmed.
func (p *plainProgress) early(n int) bool {
	for _, left := range p.left[:n] {
		if left > 0 {
			return true
		}
	}
	return false
}

// begin writes the titles up to wave n's.
func (p *plainProgress) begin(n int) {
	for ; p.begun <= n; p.begun++ {
		if p.begun > 0 {
			p.note(p.begun - 1)
		}
		if title := p.waves[p.begun].title; title != "" {
			fmt.Fprintf(p.w, "  %s\n", title)
		}
	}
}

func (p *plainProgress) note(n int) {
	if note := p.waves[n].note; note != "" {
		fmt.Fprintf(p.w, "    %s\n", note)
	}
}

func (p *plainProgress) end() {
	p.begin(len(p.waves) - 1)
	p.note(len(p.waves) - 1)
}
