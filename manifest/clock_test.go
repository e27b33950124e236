package manifest_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
)

func TestClocks(t *testing.T) {
	epoch1970 := time.Unix(0, 0)
	t.Run("at-1970-expired-stays-expired", func(t *testing.T) {
		f := mt.New(t)
		f.Rotate(mt.WithRoot(func(r *manifest.Root) { r.Issued = mt.Start.AddDate(0, 6, 0) }))
		old := f.Manifest(mt.Stable, 42) // ran out before root 2 was issued
		f.Now = epoch1970
		_, events, err := begin(t, f.Trust()).Manifest(mt.Stable, old)
		refused(t, err, fault.Expired)
		if !slices.Contains(codes(events), fault.ClockBehind) {
			t.Errorf("events %v", events)
		}
	})
	t.Run("at-1970-updates-work", func(t *testing.T) {
		f := mt.New(t)
		m42, m43 := f.Manifest(mt.Stable, 42), f.Manifest(mt.Stable, 43)
		f.Now = epoch1970
		trust := f.Trust()
		take(t, trust, mt.Stable, m42)
		_, events, err := begin(t, trust).Manifest(mt.Stable, m43)
		if err != nil || !slices.Contains(codes(events), fault.ClockBehind) {
			t.Errorf("%v, events %v", err, events)
		}
		if now, behind := begin(t, trust).Now(mt.Stable); !behind || !now.Equal(mt.Start.Add(23*time.Hour)) {
			t.Errorf("now is %s, behind %t", now, behind)
		}
	})
	t.Run("far-ahead-everything-is-expired", func(t *testing.T) {
		f := mt.New(t)
		env := f.Manifest(mt.Stable, 42)
		trust := f.Trust()
		f.Now = f.Now.AddDate(1, 0, 0)
		_, _, err := begin(t, trust).Manifest(mt.Stable, env)
		refused(t, err, fault.Expired)
	})
	t.Run("build-time-is-a-floor", func(t *testing.T) {
		f := mt.New(t)
		env := f.Manifest(mt.Stable, 42)
		o := f.Options()
		o.Build = f.Now.Add(validity)
		trust, _, err := manifest.Pin(f.Roots[0], f.Pin(), o)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = begin(t, trust).Manifest(mt.Stable, env)
		refused(t, err, fault.Expired)
	})
	t.Run("issued-a-day-ahead-is-remarked", func(t *testing.T) {
		f := mt.New(t)
		ahead := func(d time.Duration) mt.Edit {
			return mt.WithManifest(func(m *manifest.Manifest) {
				m.Issued = f.Now.Add(d)
				valid(m, time.Hour)
			})
		}
		for d, want := range map[time.Duration][]fault.Code{24 * time.Hour: nil, 24*time.Hour + time.Second: {fault.ClockSkew}} {
			_, events, err := begin(t, f.Trust()).Manifest(mt.Stable, f.Manifest(mt.Stable, 42, ahead(d)))
			if d := cmp.Diff(want, codes(events)); err != nil || d != "" {
				t.Errorf("%v, %s", err, d)
			}
		}
	})
	t.Run("mis-dated-manifest-of-another-channel", func(t *testing.T) {
		f := mt.New(t)
		trust := f.Trust()
		in2099 := time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
		_, events, err := begin(t, trust).Manifest(mt.Nightly, f.Manifest(mt.Nightly, 1, mt.WithManifest(func(m *manifest.Manifest) {
			m.Issued = in2099
			valid(m, time.Hour)
		})))
		if err != nil || !slices.Equal(codes(events), []fault.Code{fault.ClockSkew}) {
			t.Fatalf("%v, events %v", err, events)
		}
		take(t, trust, mt.Stable, f.Manifest(mt.Stable, 42))
		// And the mis-dated channel is mended by its next, honestly dated manifest.
		take(t, trust, mt.Nightly, f.Manifest(mt.Nightly, 2))
		if now, behind := begin(t, trust).Now(mt.Nightly); behind {
			t.Errorf("time stays in %s", now)
		}
	})
	t.Run("floor-mode-takes-no-notice-of-the-clock", func(t *testing.T) {
		f := mt.New(t)
		m42 := f.Manifest(mt.Stable, 42)
		o := f.Options()
		o.TimeFloor = true
		trust, _, err := manifest.Pin(f.Roots[0], f.Pin(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, clock := range []time.Time{epoch1970, f.Now.AddDate(50, 0, 0)} {
			f.Now = clock
			_, events, err := begin(t, trust).Manifest(mt.Stable, m42)
			if err != nil || len(events) > 0 {
				t.Errorf("%v, events %v", err, events)
			}
		}
		root(t, trust, f.Rotate(mt.WithRoot(func(r *manifest.Root) { r.Issued, r.Expires = mt.Start.AddDate(0, 6, 0), mt.Start.AddDate(3, 0, 0) })))
		_, _, err = begin(t, trust).Manifest(mt.Stable, m42)
		refused(t, err, fault.Expired) // a trusted document says that its time is over
	})
	t.Run("floor-mode-sees-a-hold", func(t *testing.T) {
		f := mt.New(t)
		o := f.Options()
		o.TimeFloor = true
		trust, _, _ := manifest.Pin(f.Roots[0], f.Pin(), o)
		m := f.Manifest(mt.Stable, 42)
		take(t, trust, mt.Stable, m)
		f.Now = f.Now.AddDate(0, 1, 0)
		b := f.Beacon(m, mt.Set("hold", true))
		f.Now = epoch1970
		begin(t, trust).Beacon(mt.Stable, b)
		if !trust.OnHold(mt.Stable, mt.Content("1.0.42")) {
			t.Error("a machine without a clock misses the hold")
		}
	})
	t.Run("one-reading-a-cycle", func(t *testing.T) {
		f := mt.New(t)
		env := f.Manifest(mt.Stable, 42)
		trust := f.Trust()
		c := begin(t, trust)
		f.Now = f.Now.AddDate(1, 0, 0)
		if _, _, err := c.Manifest(mt.Stable, env); err != nil {
			t.Error(err)
		}
	})
}
