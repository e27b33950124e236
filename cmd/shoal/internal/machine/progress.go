package machine

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/manifest"
)

// NewProgress shows progress as c talks.
func NewProgress(c *cli.CLI) *Progress {
	return &Progress{c: c, last: map[string]shownProgress{}}
}

// Progress shows progress as lines: when the state changes, and at most every few
// seconds or tenth of the way.
type Progress struct {
	c *cli.CLI

	mu   sync.Mutex // guards last
	last map[string]shownProgress
}

type shownProgress struct {
	state manifest.AppState
	at    time.Time
	tenth int64
}

const progressEvery = 5 * time.Second

// Show says how things stand, where that is news.
func (p *Progress) Show(now agent.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last, tenth := p.last[now.App], int64(0)
	if now.Total > 0 {
		tenth = 10 * now.Done / now.Total
	}
	if now.State == last.state && (time.Since(last.at) < progressEvery || tenth == last.tenth) {
		return
	}
	p.last[now.App] = shownProgress{now.State, time.Now(), tenth}
	line := fmt.Sprintf("%s %s %s", now.App, now.Version, now.State)
	if now.State == manifest.StateDownloading && now.Total > 0 {
		line += fmt.Sprintf(" %s of %s", humanize.IBytes(uint64(now.Done)), humanize.IBytes(uint64(now.Total)))
		if now.Rate > 0 {
			line += fmt.Sprintf(", %s/s", humanize.IBytes(uint64(now.Rate)))
		}
		if now.Peers > 0 {
			line += fmt.Sprintf(", %d peers", now.Peers)
		}
	}
	p.c.Say("%s", strings.TrimSpace(line))
}
