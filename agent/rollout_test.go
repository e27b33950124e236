package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
	"shoal/manifest/tree"
)

// gated publishes content to everyone in a first wave whose time has come and whose gate
// only a beacon opens.
func (b *bench) gated(sequence int64, content []byte, change ...func(*manifest.Rollout)) []byte {
	b.t.Helper()
	return b.Release(stable, sequence, content, manifesttest.WithManifest(func(m *manifest.Manifest) {
		m.Rollout = &manifest.Rollout{Salt: "s", Start: m.Issued, Waves: []manifest.Wave{{Name: "everyone", Percent: 100, Gate: manifest.GateBeacon}}}
		for _, c := range change {
			c(m.Rollout)
		}
	}))
}

// beacon puts a beacon for env into the tree that opens its gate, unless it is changed.
func (b *bench) beacon(env []byte, edits ...manifesttest.Edit) {
	b.t.Helper()
	open := manifesttest.WithBeacon(func(bc *manifest.Beacon) { bc.Wave = 1 })
	b.Put(tree.Beacon(stable), b.Beacon(env, append([]manifesttest.Edit{open}, edits...)...))
}

func with(change func(*manifest.Beacon)) manifesttest.Edit { return manifesttest.WithBeacon(change) }

// A beacon opens a gate only when it is the channel's, for this manifest, and fresh.
func TestBeaconsThatOpenNoGate(t *testing.T) {
	later := func(d time.Duration) manifesttest.Edit {
		return with(func(bc *manifest.Beacon) { bc.Issued, bc.Expires = bc.Issued.Add(d), bc.Expires.Add(d) })
	}
	for _, c := range []struct {
		name  string
		put   func(b *bench, env []byte)
		after time.Duration // that goes by before the machine asks
		opens bool
	}{
		{name: "good", opens: true, put: func(b *bench, env []byte) { b.beacon(env) }},
		{name: "lost", put: func(*bench, []byte) {}},
		{name: "late", after: 25 * time.Hour, put: func(b *bench, env []byte) { b.beacon(env) }},
		{name: "shut", put: func(b *bench, env []byte) { b.beacon(env, with(func(bc *manifest.Beacon) { bc.Wave = 0 })) }},
		{name: "forged", put: func(b *bench, env []byte) { b.beacon(env, manifesttest.SignedBy("stranger")) }},
		{name: "signed-by-a-release-key", put: func(b *bench, env []byte) { b.beacon(env, manifesttest.SignedBy("release-1")) }},
		{name: "unsigned", put: func(b *bench, env []byte) { b.beacon(env, manifesttest.SignedBy()) }},
		{name: "changed-after-signing", put: func(b *bench, env []byte) {
			b.beacon(env, with(func(bc *manifest.Beacon) { bc.Wave = 0 }), manifesttest.Envelope(func(e *manifest.Envelope) {
				e.Payload = []byte(strings.Replace(string(e.Payload), `"wave": 0`, `"wave": 1`, 1))
			}))
		}},
		{name: "of-another-manifest", put: func(b *bench, env []byte) {
			b.beacon(env, with(func(bc *manifest.Beacon) { bc.Manifest = manifest.Sum([]byte("another")) }))
		}},
		{name: "of-an-older-manifest", put: func(b *bench, env []byte) {
			b.beacon(env, with(func(bc *manifest.Beacon) { bc.Sequence = 1 }))
		}},
		{name: "of-a-newer-manifest", put: func(b *bench, env []byte) {
			b.beacon(env, with(func(bc *manifest.Beacon) { bc.Sequence = 3 }))
		}},
		{name: "of-another-fleet", put: func(b *bench, env []byte) {
			b.beacon(env, with(func(bc *manifest.Beacon) { bc.Repo = manifest.Sum([]byte("other")) }))
		}},
		{name: "of-another-channel", put: func(b *bench, env []byte) {
			b.beacon(env, with(func(bc *manifest.Beacon) { bc.Channel = "beta" }))
		}},
		{name: "dated-2099", put: func(b *bench, env []byte) {
			b.beacon(env, with(func(bc *manifest.Beacon) {
				bc.Issued = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
				bc.Expires = bc.Issued.Add(time.Hour)
			}))
		}},
		{name: "fresh-for-longer-than-root-allows", put: func(b *bench, env []byte) {
			b.beacon(env, with(func(bc *manifest.Beacon) { bc.Expires = bc.Issued.Add(49 * time.Hour) }))
		}},
		{name: "of-a-wave-there-is-not", put: func(b *bench, env []byte) { b.beacon(env, with(func(bc *manifest.Beacon) { bc.Wave = 2 })) }},
		{name: "of-a-negative-wave", put: func(b *bench, env []byte) { b.beacon(env, manifesttest.Set("wave", -1)) }},
		{name: "without-a-wave", put: func(b *bench, env []byte) { b.beacon(env, manifesttest.Drop("wave")) }},
		{name: "that-holds", put: func(b *bench, env []byte) { b.beacon(env, with(func(bc *manifest.Beacon) { bc.Hold = true })) }},
		{name: "from-a-replaced-key", put: func(b *bench, env []byte) {
			b.beacon(env)
			b.Rotate(manifesttest.WithRoot(func(r *manifest.Root) {
				role := b.Role(r, 1, "beacon-2")
				delete(r.Keys, b.Key("beacon-1").Public().ID())
				r.Channels[0].Beacon = &role
			}))
			b.PutRoots()
		}},
		{name: "replayed", put: func(b *bench, env []byte) {
			b.beacon(env, later(time.Minute), with(func(bc *manifest.Beacon) { bc.Wave = 0 }))
			b.want(b.update(Choice{}), fault.Held, manifest.StateHeld)
			b.beacon(env)
		}},
		{name: "gone-again-after-it-was-seen", after: 25 * time.Hour, put: func(b *bench, env []byte) {
			b.mustWish(Wish{HoldUntil: b.Now.Add(time.Hour)}, true)
			b.beacon(env)
			b.want(b.update(Choice{}), fault.Held, manifest.StateHeld)
			b.Remove(tree.Beacon(stable))
		}},
		{name: "clock-an-hour-ahead", opens: true, put: func(b *bench, env []byte) { b.beacon(env); b.Now = b.Now.Add(time.Hour) }},
		{name: "clock-an-hour-behind", opens: true, put: func(b *bench, env []byte) { b.beacon(env); b.Now = b.Now.Add(-time.Hour) }},
		{name: "clock-an-hour-ahead-of-a-shut-gate", put: func(b *bench, env []byte) {
			b.beacon(env, with(func(bc *manifest.Beacon) { bc.Wave = 0 }))
			b.Now = b.Now.Add(time.Hour)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.Release(stable, 1, b.old)
			b.update(Choice{}) // what is trusted may be older than what comes
			next := agenttest.Program("2", 0)
			c.put(b, b.gated(2, next))
			b.Now = b.Now.Add(c.after)
			if u := b.update(Choice{}); c.opens {
				b.want(u, fault.OK, manifest.StateHealthy)
				b.installed(next)
			} else {
				b.want(u, fault.Held, manifest.StateHeld)
				b.installed(b.old)
			}
		})
	}
}

// A beacon never opens a wave before its signed time.
func TestBeaconHurriesNothing(t *testing.T) {
	b := newBench(t)
	next := agenttest.Program("2", 0)
	env := b.gated(2, next, func(r *manifest.Rollout) { r.Waves[0].After = 5 * time.Hour })
	b.beacon(env)
	u := b.update(Choice{})
	b.want(u, fault.Held, manifest.StateHeld)
	if !strings.Contains(u.Why.Text, "when the publisher opens its gate") || u.Why.Until.IsZero() {
		t.Errorf("why %+v", u.Why)
	}
	b.Now = b.Now.Add(5 * time.Hour)
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.installed(next)
}

// What has failed on a machine, or is held, is not installed by a higher number alone, and
// no byte of it is fetched again.
func TestANewNumberAloneInstallsNothing(t *testing.T) {
	b := newBench(t)
	b.cfg.Apps[0].Health = HealthConfig{Type: "command", Command: []string{b.target, "--self-check"}, Timeout: failsWithin, Interval: 10 * time.Millisecond}
	bad := agenttest.Program("2", 1)
	env := b.gated(2, bad)
	b.beacon(env)
	u := b.update(Choice{})
	if u.State != manifest.StateReverted || u.Update.Bytes.Webseed != int64(len(bad)) {
		t.Fatalf("%s, %+v", u.State, u.Update)
	}
	b.installed(b.old)
	b.Remove(tree.Data(manifest.Sum(bad))) // from here on nobody can fetch it
	tries := len(b.log())

	for i, change := range []func(*manifest.Rollout){
		func(*manifest.Rollout) {}, // refreshed
		func(r *manifest.Rollout) { r.Paused = true },
		func(*manifest.Rollout) {},                              // resumed
		func(r *manifest.Rollout) { r.Waves[0].Gate = "" },      // everybody, at once
		func(r *manifest.Rollout) { r.Start = b.Now },           // started anew
		func(r *manifest.Rollout) { r.Stop = &manifest.Stop{} }, // another limit
	} {
		b.Now = b.Now.Add(time.Minute)
		env := b.gatedFrom(int64(i+3), env, change)
		b.beacon(env)
		if u := b.update(Choice{}); u.State != manifest.StateReverted || u.Code != fault.HealthFailed {
			t.Errorf("change %d: %s, %s", i, u.Code, u.State)
		}
		b.installed(b.old)
	}
	if got := len(b.log()); got != tries {
		t.Errorf("%d updates were tried, %d before", got, tries)
	}

	// One more try, from the bytes that are here; and only one.
	for range 2 {
		b.Now = b.Now.Add(time.Minute)
		env = b.gatedFrom(20, env, func(r *manifest.Rollout) { r.Retry = 1 })
		b.beacon(env)
		if u := b.update(Choice{}); u.State != manifest.StateReverted || u.Update.Bytes != (Bytes{}) {
			t.Errorf("retried: %s, %+v", u.State, u.Update)
		}
	}
	if got := len(b.log()); got != tries+1 {
		t.Errorf("%d updates after one retry, %d before", got, tries)
	}
}

// gatedFrom publishes the artifacts of env again, whose data may be gone from the tree.
func (b *bench) gatedFrom(sequence int64, env []byte, change func(*manifest.Rollout)) []byte {
	b.t.Helper()
	e, err := manifest.ParseEnvelope(env, manifest.TypeManifest)
	if err != nil {
		b.t.Fatal(err)
	}
	old, err := manifest.ReadManifestDraft(e.Payload)
	if err != nil {
		b.t.Fatal(err)
	}
	next := b.Manifest(stable, sequence, manifesttest.WithManifest(func(m *manifest.Manifest) {
		m.Artifacts, m.Release, m.Rollout = old.Artifacts, old.Release, old.Rollout
		m.Rollout.Retry = 0
		change(m.Rollout)
	}))
	b.Put(tree.Manifest(stable), next)
	return next
}

// Pausing and going on costs a machine that has the bytes nothing, and one that runs them
// even less.
func TestPausePromoteAndRefreshFetchNothing(t *testing.T) {
	b := newBench(t)
	next := agenttest.Program("2", 0)
	env := b.gated(2, next)
	b.beacon(env)
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.Remove(tree.Data(manifest.Sum(next)))
	for i, change := range []func(*manifest.Rollout){
		func(r *manifest.Rollout) { r.Paused = true }, func(*manifest.Rollout) {}, func(r *manifest.Rollout) { r.Retry = 4 },
	} {
		b.Now = b.Now.Add(time.Minute)
		u := func() Updated { b.gatedFrom(int64(i+3), env, change); return b.update(Choice{}) }()
		b.want(u, fault.Same, manifest.StateHealthy)
		if u.Sequence != int64(i+3) || u.Update.Bytes.Webseed != int64(len(next)) {
			t.Errorf("sequence %d, the last update cost %+v", u.Sequence, u.Update)
		}
	}
	b.installed(next)
}

// A hold that comes while a release is being prepared stops it before the swap, and
// sticks to the content.
func TestHoldInTheMiddleOfAnUpdate(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	begun, goOn := filepath.Join(dir, "begun"), filepath.Join(dir, "go-on")
	script := filepath.Join(dir, "pre")
	text := "#!/bin/sh\ntouch " + begun + "\nwhile [ ! -e " + goOn + " ]; do sleep 0.01; done\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	b.cfg.Apps[0].Hooks = HooksConfig{Pre: []string{script}, Timeout: time.Minute}
	next := agenttest.Program("2", 0)
	env := b.gated(2, next)
	b.beacon(env)
	stop := b.run()
	waitForFile(t, begun)
	hold := with(func(bc *manifest.Beacon) {
		bc.Issued, bc.Hold, bc.Reason = bc.Issued.Add(time.Minute), true, "looking into it"
	})
	b.beacon(env, hold)
	h := b.connect()
	if _, err := h.Check(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.until("the hold", func(s *AppStatus) bool {
		return s.State == manifest.StateHeld && s.Why != nil && strings.Contains(s.Why.Text, "holds this release")
	})
	b.installed(b.old)
	stop()
	b.Remove(tree.Data(manifest.Sum(next)))

	// The beacon is gone, and the number is another: the content is held all the same.
	b.Remove(tree.Beacon(stable))
	env = b.gatedFrom(3, env, func(r *manifest.Rollout) { r.Waves[0].Gate = "" })
	b.want(b.update(Choice{Override: true}), fault.Held, manifest.StateHeld)
	b.installed(b.old)
	// Only a beacon for what is offered ends it; nothing is fetched for that.
	b.beacon(env, with(func(bc *manifest.Beacon) { bc.Issued = bc.Issued.Add(2 * time.Minute) }))
	b.cfg.Apps[0].Hooks = HooksConfig{}
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
	b.installed(next)
}

func TestFetchingAheadOfAWave(t *testing.T) {
	b := newBench(t)
	next := agenttest.Program("2", 0)
	env := b.gated(2, next)
	stop := b.run()
	b.until("the download", func(s *AppStatus) bool { return s.State == manifest.StateHeld && s.Ahead == AheadHere })
	b.installed(b.old)
	if s := b.status().Apps[0]; !strings.Contains(s.Why.Text, "waits for its gate") {
		t.Errorf("why %+v", s.Why)
	}
	b.Remove(tree.Data(manifest.Sum(next)))
	b.beacon(env)
	h := b.connect()
	if _, err := h.Check(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	b.until("the update", func(s *AppStatus) bool { return s.State == manifest.StateHealthy })
	if u := b.status().Apps[0].Update; u == nil || u.Bytes.Webseed != int64(len(next)) {
		t.Errorf("the account of the update is %+v", u)
	}
	b.installed(next)
	stop()
}

func TestNotFetchedAhead(t *testing.T) {
	for _, c := range []struct {
		name   string
		config func(*Config)
		plan   func(*manifest.Rollout)
	}{
		{name: "switched-off", config: func(c *Config) { c.Prefetch = "off" }},
		{name: "a-small-wave", plan: func(r *manifest.Rollout) {
			r.Waves = []manifest.Wave{{Name: "all", Percent: 24, Gate: manifest.GateBeacon}}
		}},
		{name: "not-within-a-day", plan: func(r *manifest.Rollout) { r.Waves[0].After = 26 * time.Hour }},
		{name: "paused", plan: func(r *manifest.Rollout) { r.Paused = true }},
		{name: "in-no-wave", plan: func(r *manifest.Rollout) { r.Waves = []manifest.Wave{{Name: "lab", Rings: []string{"lab"}}} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			if c.config != nil {
				c.config(&b.cfg)
			}
			next := agenttest.Program("2", 0)
			b.gated(2, next, func(r *manifest.Rollout) {
				if c.plan != nil {
					c.plan(r)
				}
			})
			b.run()
			b.until("a check", func(s *AppStatus) bool { return s.State == manifest.StateHeld && s.LastCheck != nil })
			// What would be begun is begun by the check itself.
			if s := b.status().Apps[0]; s.Ahead != "" {
				t.Errorf("ahead is %q", s.Ahead)
			}
			if stored, err := b.connect().Stored(t.Context()); err != nil || len(stored) != 0 {
				t.Errorf("stored %+v, %v", stored, err)
			}
		})
	}
}
