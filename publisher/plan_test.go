package publisher

import (
	"slices"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/rollout"
)

var inWaves = &rollout.Plan{Waves: []string{"ring:canary", "50%", "100%"}, Soak: time.Hour}

func (f *testFleet) steer(do Steering) (*PublishResult, error) {
	f.t.Helper()
	f.now = f.now.Add(time.Minute)
	return f.open().Steer(f.t.Context(), SteerRequest{Do: do, AgainRequest: AgainRequest{
		Channel: stable, DraftDir: f.dist, Keys: f.request("x", "x", f.release...).Keys,
	}})
}

func (f *testFleet) mustSteer(do Steering) *manifest.Rollout {
	f.t.Helper()
	if _, err := f.steer(do); err != nil {
		f.t.Fatalf("%s: %v", do, err)
	}
	if _, err := f.agent(); err != nil {
		f.t.Fatalf("%s: an agent refuses it: %v", do, err)
	}
	return f.stored().Rollout
}

// Each step is a new number with the same files, the same salt, and nothing else changed.
func TestSteering(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	req := f.request("1.0.0", "one", f.release...)
	req.Plan = inWaves
	if _, err := f.open().Publish(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	first := f.stored()
	if !first.Rollout.Paused || len(first.Rollout.Waves) != 3 || first.Rollout.Waves[1].Gate != "" {
		t.Fatalf("%+v", first.Rollout)
	}
	if res, err := f.open().Publish(t.Context(), req); err != nil || !res.Already {
		t.Errorf("the same again: %+v, %v", res, err)
	}
	_, err := f.steer(SteerResume)
	wantCode(t, err, fault.Policy)

	began := f.mustSteer(SteerStart)
	if began.Paused || !began.Start.Equal(f.now) {
		t.Errorf("started: %+v at %s", began, f.now)
	}
	if res, err := f.steer(SteerStart); err != nil || !res.Already {
		t.Errorf("started twice: %+v, %v", res, err)
	}
	if r := f.mustSteer(SteerPause); !r.Paused {
		t.Errorf("paused: %+v", r)
	}
	_, err = f.steer(SteerStart)
	wantCode(t, err, fault.Policy)
	if r := f.mustSteer(SteerResume); r.Paused || !r.Start.Equal(began.Start) {
		t.Errorf("resumed: %+v, it began %s", r, began.Start)
	}
	if r := f.mustSteer(SteerRetry); r.Retry != 1 || r.Paused {
		t.Errorf("retried: %+v", r)
	}
	last := f.stored()
	if last.Sequence != 5 || last.Rollout.Salt != first.Rollout.Salt || !sameContent(first, last) || last.Release != first.Release {
		t.Errorf("%+v", last)
	}

	// Another release has a salt of its own; another plan for the same files keeps it.
	req = f.request("2.0.0", "two", f.release...)
	req.Plan, req.Start = inWaves, true
	if _, err := f.open().Publish(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	two := f.stored().Rollout
	if two.Salt == last.Rollout.Salt || two.Paused || two.Retry != 0 {
		t.Errorf("%+v", two)
	}
	f.now = f.now.Add(time.Hour)
	req.Plan = &rollout.Plan{Waves: []string{"ring:canary", "80%", "100%"}, Soak: time.Hour}
	if _, err := f.open().Publish(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if r := f.stored().Rollout; r.Salt != two.Salt || !r.Start.Equal(two.Start) || r.Waves[1].Percent != 80 || r.Paused {
		t.Errorf("%+v, before %+v", r, two)
	}
}

// Two people sign one plan, though each of them asks for it at another moment.
func TestPlanSignedByTwo(t *testing.T) {
	f := newFleet(t, 2, "release-1@acme", "release-2@acme")
	req := f.request("1.0.0", "one", f.release[0])
	req.Plan = inWaves
	_, err := f.open().Publish(t.Context(), req)
	wantCode(t, err, fault.Threshold)
	f.now = f.now.Add(time.Minute)
	req.Keys = with(f.release[1])
	if _, err := f.open().Publish(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if r := f.stored().Rollout; r == nil || len(r.Waves) != 3 {
		t.Errorf("%+v", r)
	}
}

// Without a key there is a draft, and what is published stays.
func TestSteeringWithoutAKeyLeavesADraft(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", "one")
	res, err := f.open().Steer(t.Context(), SteerRequest{Do: SteerPause, AgainRequest: AgainRequest{Channel: stable, DraftDir: f.dist}})
	if err != nil || res.Draft == "" || res.Sequence != 2 {
		t.Fatalf("%+v, %v", res, err)
	}
	if got := f.stored(); got.Sequence != 1 {
		t.Errorf("sequence %d is published", got.Sequence)
	}
}

func TestTakingBack(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	keys := f.request("x", "x", f.release...).Keys
	back := func() error {
		_, err := f.open().TakeBack(t.Context(), YankRequest{AgainRequest: AgainRequest{Channel: stable, Keys: keys}, Reason: "bad"})
		return err
	}
	wantCode(t, back(), fault.NotFound) // nothing at all
	f.publish("1.0.0", "one")
	wantCode(t, back(), fault.NotFound) // nothing before it
	f.publish("2.0.0", "two")
	f.publish("3.0.0", "three")
	for _, want := range []string{"2.0.0", "1.0.0"} { // what was taken back is not gone back to
		if err := back(); err != nil {
			t.Fatal(err)
		}
		if got := f.stored(); got.Release.Version != want || got.Rollout != nil {
			t.Errorf("%s is offered, want %s", got.Release.Version, want)
		}
	}
	wantCode(t, back(), fault.NotFound)
}

// The channel's usual plan is what the configuration says, with gates once root names a
// beacon.
func TestUsualPlan(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.cfg.Channels = []ChannelConfig{{Name: "stable", Rollout: *inWaves}}
	f.publish("1.0.0", "one")
	if r := f.stored().Rollout; r == nil || !r.Paused {
		t.Errorf("%+v", r)
	}
	req := f.request("2.0.0", "two", f.release...)
	req.Plan = &rollout.Plan{}
	if _, err := f.open().Publish(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if r := f.stored().Rollout; r != nil {
		t.Errorf("--waves none: %+v", r)
	}
	f.cfg.Channels[0].Rollout.Waves = slices.Concat(inWaves.Waves, []string{"100%"})
	_, err := Open(f.cfg)
	wantCode(t, err, fault.Config)
}
