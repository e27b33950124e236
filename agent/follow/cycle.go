package follow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
)

// run is one cycle under way, of which there is one at a time. All of it holds f.mu but
// where it waits for sources; meanwhile only [Follower.Take] changes what is trusted.
type run struct {
	f      *Follower
	ctx    context.Context // the cycle's
	report *Report
	live   []*member // sources still in the cycle
	failed failures

	unstored error // why there is no trust in memory any more
}

// failures keeps the first failure in the order of the sources. What a document said
// counts before a document that was not there, and that before silence.
type failures struct {
	verdict, missing, silent error
}

func (f *failures) add(err error) {
	var slot *error
	switch fault.CodeOf(err) {
	case fault.Unreachable:
		slot = &f.silent
	case fault.NotFound:
		slot = &f.missing
	default:
		slot = &f.verdict
	}
	if *slot == nil {
		*slot = err
	}
}

func (f *failures) first() error {
	for _, err := range []error{f.verdict, f.missing, f.silent} {
		if err != nil {
			return err
		}
	}
	return fault.New(fault.Unreachable, "no source is configured").Do("set sources in the configuration, or shoal agent join LINK")
}

// answer is what one source gave for one path.
type answer struct {
	from *member
	doc  []byte
	err  error
}

var errLate = fault.New(fault.Unreachable, "others answered long before")

// ask asks the sources at once and returns their answers in the order of the sources. Once
// one has answered, the others have a little longer: none keeps a machine waiting alone.
func (r *run) ask(from []*member, path string, limit int64) []answer {
	answers := make([]answer, len(from))
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	var late sync.Once
	var wg sync.WaitGroup
	r.f.mu.Unlock()
	for i, m := range from {
		wg.Go(func() {
			doc, err := m.Document(ctx, path, limit)
			answers[i] = answer{m, doc, err}
			if !errors.Is(err, fault.Unreachable) { // which says nothing about how long the others need
				late.Do(func() { time.AfterFunc(r.f.c.Laggards, func() { cancel(errLate) }) })
			}
		})
	}
	wg.Wait()
	r.f.mu.Lock()
	for _, a := range answers {
		r.f.answered(a.from, a.err)
	}
	return answers
}

// drop takes a source out of the cycle. What it did is an event; being silent is none.
func (r *run) drop(m *member, doc string, err error) {
	r.live = slices.DeleteFunc(slices.Clone(r.live), func(o *member) bool { return o == m })
	r.failed.add(err)
	r.tell(m, doc, err)
}

func (r *run) tell(m *member, doc string, err error) {
	if code := fault.CodeOf(err); code != fault.Unreachable && code != fault.NotFound && r.ctx.Err() == nil {
		r.report.Events = append(r.report.Events, manifest.Event{Code: code, Doc: doc, Detail: "from " + m.Name() + ": " + err.Error()})
		r.f.c.Logger.Warn("refused a document", "document", doc, "source", m.Name(), "code", code, "err", err)
	}
}

// roots follows the chain of roots to its end. Each is stored as soon as it is trusted.
func (r *run) roots() error {
	t := r.f.trust
	asking := r.live
	for taken := 0; len(asking) > 0 && taken < manifest.MaxRootsPerCycle; taken++ {
		next := t.RootVersion() + 1
		doc := fmt.Sprintf("root %d", next)
		var more []*member
		var accepted []byte // by this round
		answers := r.ask(asking, tree.Root(next), manifest.MaxRoot)
		if r.f.trust == nil {
			return errUnstored
		}
		if t.RootVersion() >= next { // a neighbour was quicker
			accepted = t.Snapshot().Roots[next-1]
		}
		for _, a := range answers {
			switch {
			case errors.Is(a.err, fault.NotFound): // the end of this source's chain
			case a.err != nil:
				r.drop(a.from, doc, a.err)
			case t.RootVersion() >= next && same(a.doc, accepted):
				more = append(more, a.from)
			case t.RootVersion() >= next:
				r.drop(a.from, doc, fault.New(fault.RootChain, "root %d differs from the one that was just accepted", next))
			default:
				events, err := t.UpdateRoot(a.doc)
				r.report.Events = append(r.report.Events, events...)
				if err != nil {
					r.drop(a.from, doc, err)
					continue
				}
				if err := r.f.save(); err != nil {
					return err
				}
				r.f.c.Logger.Info("root accepted", "root", next, "source", a.from.Name())
				more, accepted = append(more, a.from), a.doc
			}
		}
		if r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		if t.RootVersion() < next {
			break
		}
		if taken == manifest.MaxRootsPerCycle-1 {
			r.report.Events = append(r.report.Events, manifest.Event{Code: fault.RootBehind, Doc: doc,
				Detail: "too many roots for one check; the next one goes on"})
		}
		asking = more
	}
	if len(r.live) == 0 {
		return r.failed.first()
	}
	return nil
}

// same reports whether two envelopes carry the same payload.
func same(a, b []byte) bool {
	ea, err := manifest.ParseEnvelope(a, manifest.TypeRoot)
	if err != nil {
		return false
	}
	eb, err := manifest.ParseEnvelope(b, manifest.TypeRoot)
	return err == nil && ea.PayloadHash() == eb.PayloadHash()
}

// channel checks one channel: its manifest, and its beacon from the sources whose
// manifest was good.
func (r *run) channel(ch manifest.Channel) Outcome {
	out := Outcome{Channel: ch, Freshness: manifest.FreshNone}
	before, _ := r.f.trust.Held(ch)
	cycle, err := r.f.trust.Begin()
	if err != nil {
		out.Err = err
		out.Verified = before
		return out
	}
	if _, ok := r.f.trust.Root().Channel(ch); !ok {
		// Whatever a source has under that name says nothing.
		_, _, out.Err = cycle.Manifest(ch, nil)
		out.Verified = before
		return out
	}
	var good []*member
	var failed failures
	doc := "manifest " + ch.String()
	answers := r.ask(r.live, tree.Manifest(ch), manifest.MaxManifest)
	if r.f.trust == nil {
		out.Err, r.unstored = errUnstored, errUnstored
		return out
	}
	for _, a := range answers {
		err := a.err
		var v *manifest.Verified
		if err == nil {
			v, cycle, err = r.manifest(cycle, ch, a)
		}
		if err != nil {
			failed.add(err)
			if a.err != nil || !lagging(before, a.doc) {
				r.tell(a.from, doc, err)
			}
			if r.f.trust == nil { // it could not be stored
				out.Err, r.unstored = err, err
				return out
			}
			continue
		}
		out.New = out.New || !v.Same
		good = append(good, a.from)
	}
	out.Verified, _ = r.f.trust.Held(ch)
	// A root that came with a bad manifest may have ended the good one that came before.
	if len(good) == 0 || out.Verified == nil {
		out.Err = failed.first()
		if r.ctx.Err() != nil {
			out.Err = r.ctx.Err()
		}
	}
	out.Freshness = r.beacon(cycle, ch, good)
	if err := r.f.save(); err != nil {
		r.unstored = err
		if out.Err == nil {
			out.Err = err
		}
	}
	return out
}

// manifest verifies one candidate and stores it. A candidate that needs a newer root
// gets one more look at the source's roots. It returns the cycle to go on with.
func (r *run) manifest(cycle *manifest.Cycle, ch manifest.Channel, a answer) (*manifest.Verified, *manifest.Cycle, error) {
	v, events, err := cycle.Manifest(ch, a.doc)
	if errors.Is(err, fault.RootBehind) {
		had := r.f.trust.RootVersion()
		again := &run{f: r.f, ctx: r.ctx, report: r.report, live: []*member{a.from}}
		if again.roots() == nil && r.f.trust.RootVersion() > had {
			fresh, berr := r.f.trust.Begin()
			if berr != nil {
				return nil, cycle, berr
			}
			cycle = fresh
			v, events, err = cycle.Manifest(ch, a.doc)
		}
	}
	r.report.Events = append(r.report.Events, events...)
	if err != nil {
		return nil, cycle, err
	}
	if !v.Same {
		if err := r.f.save(); err != nil {
			return nil, cycle, err
		}
		r.f.c.Logger.Info("manifest accepted", "channel", ch, "version", v.Manifest.Release.Version,
			"sequence", v.Manifest.Sequence, "source", a.from.Name())
	}
	return v, cycle, nil
}

// lagging reports whether doc is what was trusted before this cycle: its source is
// merely late, and nobody has to be told.
func lagging(before *manifest.Verified, doc []byte) bool {
	if before == nil {
		return false
	}
	env, err := manifest.ParseEnvelope(doc, manifest.TypeManifest)
	return err == nil && env.PayloadHash() == before.Hash
}

func (r *run) beacon(cycle *manifest.Cycle, ch manifest.Channel, good []*member) manifest.Freshness {
	freshness, _ := cycle.Beacon(ch, nil) // what the stored one says
	if freshness == manifest.FreshNone {
		return freshness
	}
	answers := r.ask(good, tree.Beacon(ch), manifest.MaxBeacon)
	if r.f.trust == nil {
		return freshness // and storing fails
	}
	for _, a := range answers {
		if a.err != nil {
			r.tell(a.from, "beacon "+ch.String(), a.err)
			continue
		}
		var events []manifest.Event
		freshness, events = cycle.Beacon(ch, a.doc)
		r.report.Events = append(r.report.Events, events...)
	}
	return freshness
}
