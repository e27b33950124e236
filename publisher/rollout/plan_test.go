package rollout

import (
	"strings"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
)

func TestPlan(t *testing.T) {
	p := Plan{Waves: []string{"ring:canary", "ring:early+10%", "50%@24h", "100%"}, Soak: time.Hour}
	for _, gated := range []bool{true, false} {
		r, err := p.Rollout(gated, true, noon)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Paused || r.Start != noon || len(r.Salt) < 8 || r.Stop.FailedPercent != 5 || r.Stop.MinReports != 3 {
			t.Errorf("%+v", r)
		}
		var names []string
		var after []time.Duration
		for i, w := range r.Waves {
			names, after = append(names, w.Name), append(after, w.After)
			if want := gated && i > 0; (w.Gate == manifest.GateBeacon) != want || (w.Soak != 0) != want {
				t.Errorf("gated %v: %+v", gated, w)
			}
		}
		if strings.Join(names, " ") != "canary early 50-percent everyone" {
			t.Errorf("names %q", names)
		}
		if want := []time.Duration{0, time.Hour, 24 * time.Hour, 25 * time.Hour}; after[1] != want[1] || after[2] != want[2] || after[3] != want[3] {
			t.Errorf("after %s, want %s", after, want)
		}
		other, err := p.Rollout(gated, true, noon)
		if err != nil || other.Salt == r.Salt {
			t.Errorf("two releases share a salt, %v", err)
		}
	}
	if r, err := (&Plan{}).Rollout(true, true, noon); r != nil || err != nil {
		t.Errorf("without waves: %+v, %v", r, err)
	}
}

func TestPlansThatAreRefused(t *testing.T) {
	many := make([]string, 10_000)
	for i := range many {
		many[i] = "100%"
	}
	for _, c := range []struct {
		name string
		plan Plan
		says string
	}{
		{"gap", Plan{Waves: []string{"ring:canary", "50%"}}, "leaves machines out"},
		{"rings-alone", Plan{Waves: []string{"ring:canary"}}, "leaves machines out"},
		{"same-share-twice", Plan{Waves: []string{"10%", "10%", "100%"}}, "has nobody"},
		{"falling-share", Plan{Waves: []string{"50%", "10%", "100%"}}, "has nobody"},
		{"after-everyone", Plan{Waves: []string{"100%", "ring:late"}}, "has nobody"},
		{"ring-twice", Plan{Waves: []string{"ring:a", "ring:a+100%"}}, "wave 1 and in wave 2"},
		{"ring-twice-in-one", Plan{Waves: []string{"ring:a+ring:a", "100%"}}, "wave 1 and in wave 1"},
		{"two-shares", Plan{Waves: []string{"10%+20%", "100%"}}, "two shares"},
		{"zero-share", Plan{Waves: []string{"0%", "100%"}}, "no wave"},
		{"negative-share", Plan{Waves: []string{"-5%", "100%"}}, "no wave"},
		{"signed-share", Plan{Waves: []string{"+5%", "100%"}}, "no wave"},
		{"over-all", Plan{Waves: []string{"101%"}}, "no wave"},
		{"parts-of-a-percent", Plan{Waves: []string{"2.5%", "100%"}}, "no wave"},
		{"empty-wave", Plan{Waves: []string{"", "100%"}}, "no wave"},
		{"bad-ring", Plan{Waves: []string{"ring:Canary", "100%"}}, "no name of a ring"},
		{"no-ring", Plan{Waves: []string{"ring:", "100%"}}, "no name of a ring"},
		{"negative-time", Plan{Waves: []string{"10%", "100%@-4h"}}, "no time"},
		{"parts-of-a-second", Plan{Waves: []string{"10%", "100%@1ms"}}, "no time"},
		{"zero-time", Plan{Waves: []string{"10%", "100%@0s"}}, "would not open after wave 1"},
		{"falling-time", Plan{Waves: []string{"10%@4h", "50%@5h", "100%@4h"}}, "would not open after wave 2"},
		{"negative-soak", Plan{Waves: []string{"10%", "100%"}, Soak: -time.Hour}, "soak"},
		{"stop-above-all", Plan{Waves: []string{"100%"}, StopAtFailed: 101}, "101 %"},
		{"10000-waves", Plan{Waves: many}, "10000 waves"},
		{"endless-wave", Plan{Waves: []string{strings.Repeat("ring:a+", 1<<16)}}, "bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := c.plan.Rollout(true, true, noon)
			if fault.CodeOf(err) != fault.Usage || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v, %v; want usage and %q", r, err, c.says)
			}
		})
	}
}

// Whatever is written, what comes out of it is fit to be signed.
func FuzzPlan(f *testing.F) {
	f.Add("ring:canary,10%,50%@24h,100%", int64(1800))
	f.Add("ring:a+ring:b+1%@1s,100%", int64(0))
	f.Add("99%,100%", int64(1))
	f.Fuzz(func(t *testing.T, text string, soak int64) {
		p := Plan{Waves: strings.Split(text, ","), Soak: time.Duration(soak) * time.Second}
		r, err := p.Rollout(true, false, noon)
		if err != nil {
			if fault.CodeOf(err) != fault.Usage {
				t.Errorf("%v", err)
			}
			return
		}
		last := manifest.Wave{After: -1}
		for i, w := range r.Waves {
			if w.After <= last.After || !manifest.ValidName(w.Name) || w.Percent == 0 && len(w.Rings) == 0 {
				t.Errorf("wave %d is %+v after %+v", i+1, w, last)
			}
			last = w
		}
	})
}
