package agent

import (
	"context"
	"errors"
	"os"
	"time"

	"shoal/agent/acquire"
	"shoal/internal/fault"
	"shoal/manifest"
)

// What is worth fetching before one's wave opens: many machines will want it, and soon.
const (
	aheadPercent = 25
	aheadWithin  = 24 * time.Hour
)

// How a release that waits for its wave stands.
const (
	AheadFetching = "fetching"
	AheadHere     = "here" // downloaded and verified; its bytes are given to neighbours
)

// ahead is a download for a wave that has not opened.
type ahead struct {
	d      manifest.Digest // of the payload
	cancel context.CancelFunc
	done   chan struct{} // closed when the owner has taken the result
}

// fetchAhead begins to download what d offers, if only its wave is in the way and that is
// near: the bytes spread early, and the switch is quick. Nothing is installed by it.
func (a *Agent) fetchAhead(app *app, d decision) {
	if !a.worthAhead(app, d) {
		return
	}
	if a.inCache(d.payload) {
		a.give(app, d.payload)
		return
	}
	ctx, cancel := context.WithCancel(a.ctx)
	h := &ahead{d: d.payload.SHA256, cancel: cancel, done: make(chan struct{})}
	app.ahead = h
	w := acquire.Wanted{Payload: d.payload, Release: app.cfg.Name + " " + d.held.Manifest.Release.Version}
	a.log.Info("fetching ahead of its wave", "app", app.cfg.Name, "version", d.held.Manifest.Release.Version)
	a.jobs.Go(func() {
		defer close(h.done)
		defer cancel()
		var got Bytes
		f, given, err := a.acquirer(a.swarmForUpdate).Open(ctx, w, func(now acquire.Progress) { got = countBytes(now.Bytes) })
		if err == nil {
			f.Close()
		}
		a.do(context.Background(), func() {
			app.ahead = nil
			if app.early.d != h.d {
				app.early = early{d: h.d}
			}
			app.early.bytes = app.early.bytes.plus(got)
			if given {
				a.shared[w.Payload.Infohash] = w.Payload.SHA256
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				a.log.Warn("not fetched ahead", "app", app.cfg.Name, "err", err) // the next check tries again
			}
			a.goOn(app)
		})
	})
}

// early is what was fetched ahead, for the account of the update that follows.
type early struct {
	d     manifest.Digest
	bytes Bytes
}

func (b Bytes) plus(c Bytes) Bytes {
	return Bytes{LAN: b.LAN + c.LAN, WAN: b.WAN + c.WAN, Origin: b.Origin + c.Origin, Webseed: b.Webseed + c.Webseed}
}

func (a *Agent) worthAhead(app *app, d decision) bool {
	if a.cfg.Prefetch == "off" || !a.serving.Load() || a.closing || app.job != nil || app.ahead != nil || d.payload == nil || d.install {
		return false
	}
	var e *fault.Error
	if d.state != manifest.StateHeld || !errors.As(d.why, &e) {
		return false
	}
	n, waits := e.Facts["wave"].(int) // only myTurn says so, as the last of the questions
	if !waits {
		return false
	}
	r := d.held.Manifest.Rollout
	w := &r.Waves[n-1]
	return w.Percent >= aheadPercent && r.Start.Add(w.After).Before(a.cfg.Clock().Add(aheadWithin))
}

func (a *Agent) inCache(p *manifest.Payload) bool {
	fi, err := os.Stat(a.cache.Path(p.SHA256))
	return err == nil && fi.Size() == p.Length
}

// endAhead ends a download ahead, so that an update can go on from what it has brought.
func (a *Agent) endAhead(ctx context.Context, app *app) error {
	var h *ahead
	if err := a.do(ctx, func() { h = app.ahead }); err != nil || h == nil {
		return err
	}
	h.cancel()
	select {
	case <-h.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// showAhead puts into the status how far a download ahead is.
func (a *Agent) showAhead(app *app, d decision) {
	switch {
	case app.ahead != nil:
		app.status.Ahead = AheadFetching
	case d.payload != nil && d.state == manifest.StateHeld && a.inCache(d.payload):
		app.status.Ahead = AheadHere
	default:
		app.status.Ahead = ""
	}
}
