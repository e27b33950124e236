package manifest_test

import (
	"crypto/sha256"
	"fmt"
	"math"
	"testing"
	"time"

	"shoal/keys"
	"shoal/manifest"
)

// TestCohortVectors were computed by another program (Python's hashlib): the first 8 bytes of
// SHA-256(salt 0x00 agent), big endian, modulo 10000. Other implementations must agree.
func TestCohortVectors(t *testing.T) {
	rows := []struct {
		salt  string
		agent keys.ID
		want  int
	}{
		{"b1946ac9", "SHA256:k7pAze0srsBrQUTPDT+M8t/+Vx+vfp88QAmDlBBnPEc", 4796},
		{"b1946ac9", "SHA256:WcfMakOXNg7OnnmtwBD6O8dymNyENdqoLxjyia7haGs", 9405},
		{"", "SHA256:k7pAze0srsBrQUTPDT+M8t/+Vx+vfp88QAmDlBBnPEc", 8106},
		{"Sälz", "SHA256:k7pAze0srsBrQUTPDT+M8t/+Vx+vfp88QAmDlBBnPEc", 9173},
	}
	for _, r := range rows {
		if got := manifest.Cohort(r.salt, r.agent); got != r.want {
			t.Errorf("Cohort(%q, %q) = %d, want %d", r.salt, r.agent, got, r.want)
		}
	}
	if manifest.Cohort("a\x00b", "c") != manifest.Cohort("a", "b\x00c") {
		t.Error("the bytes hashed are not salt, zero, agent")
	}
}

// TestCohortsAreUniform is a chi-square test over 100 bins of 20,000 machines: with 99
// degrees of freedom a fair spread is above 149 once in a thousand salts. The salts are
// fixed, so the outcome is too.
func TestCohortsAreUniform(t *testing.T) {
	const machines, bins = 20_000, 100
	for _, salt := range []string{"b1946ac9", "0", "release 2.4.1"} {
		var count [bins]int
		for i := range machines {
			id := sha256.Sum256([]byte(fmt.Sprint(i)))
			count[manifest.Cohort(salt, keys.ID(fmt.Sprintf("SHA256:%x", id)))*bins/manifest.Cohorts]++
		}
		chi := 0.0
		for _, n := range count {
			chi += math.Pow(float64(n)-machines/bins, 2) / (machines / bins)
		}
		if chi > 149 {
			t.Errorf("salt %q: chi-square %.0f", salt, chi)
		}
	}
}

// TestTurn is one plan looked at by four machines at each time and gate.
func TestTurn(t *testing.T) {
	start := time.Date(2026, 10, 12, 22, 0, 0, 0, time.UTC)
	plan := &manifest.Rollout{Salt: "b1946ac9", Start: start, Waves: []manifest.Wave{
		{Name: "canary", Rings: []string{"canary"}},
		{Name: "pilot", Percent: 10, After: 4 * time.Hour, Gate: manifest.GateBeacon},
		{Name: "early", Rings: []string{"early"}, After: 5 * time.Hour}, // no gate, and none opens before the one in front
		{Name: "everyone", Percent: 100, After: 24 * time.Hour, Gate: manifest.GateBeacon},
	}}
	type machine struct {
		cohort int
		rings  []string
	}
	canary, pilot := machine{9999, []string{"eu", "canary"}}, machine{999, nil}
	early, rest := machine{1000, []string{"early"}}, machine{1000, nil}
	rows := []struct {
		name string
		m    machine
		wave int
		hour float64
		gate int64
		open bool
	}{
		{"canary-before-start", canary, 1, -0.001, 4, false},
		{"canary-at-start", canary, 1, 0, 0, true},
		{"pilot-before-its-time-with-open-gate", pilot, 2, 3.999, 4, false},
		{"pilot-with-closed-gate", pilot, 2, 4, 1, false},
		{"pilot-with-open-gate", pilot, 2, 4, 2, true},
		{"pilot-when-the-beacon-expired", pilot, 2, 100, 0, false},
		{"early-behind-a-closed-gate", early, 3, 100, 1, false},
		{"early-after-it", early, 3, 5, 2, true},
		{"early-before-its-time", early, 3, 4.5, 4, false},
		{"rest-with-all-gates", rest, 4, 24, 4, true},
		{"rest-one-gate-short", rest, 4, 24, 3, false},
		{"rest-before-its-time", rest, 4, 23.9, 4, false},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			now := start.Add(time.Duration(r.hour * float64(time.Hour)))
			turn := plan.Turn(now, r.gate, r.m.cohort, r.m.rings)
			if turn.Wave != r.wave || turn.Open != r.open {
				t.Errorf("got %+v", turn)
			}
			if want := start.Add(plan.Waves[r.wave-1].After); !turn.At.Equal(want) {
				t.Errorf("its time is %s, want %s", turn.At, want)
			}
			if turn.Gated != (!turn.Open && !now.Before(turn.At)) {
				t.Errorf("gated: %t", turn.Gated)
			}
		})
	}
	if turn := plan.Turn(start.AddDate(1, 0, 0), 4, 10_000, nil); turn.Open || turn.Wave != 0 {
		t.Errorf("a machine in no wave gets %+v", turn)
	}
	for _, all := range []*manifest.Rollout{nil, {}, {Salt: "x", Start: start.AddDate(9, 0, 0)}} {
		if turn := all.Turn(start, 0, 5, nil); !turn.Open || turn.Wave != 0 {
			t.Errorf("without waves a machine gets %+v", turn)
		}
	}
}

func TestGate(t *testing.T) {
	for _, r := range []struct {
		b    manifest.Brake
		want int64
	}{
		{manifest.Brake{Freshness: manifest.FreshCurrent, Wave: 3}, 3},
		{manifest.Brake{Freshness: manifest.FreshCurrent, Wave: 3, Hold: true}, 0},
		{manifest.Brake{Freshness: manifest.FreshBehind, Wave: 3}, 0},
		{manifest.Brake{Freshness: manifest.FreshStale, Wave: 3}, 0},
		{manifest.Brake{Freshness: manifest.FreshNone, Wave: 3}, 0},
	} {
		if got := r.b.Gate(); got != r.want {
			t.Errorf("%+v lets wave %d open, want %d", r.b, got, r.want)
		}
	}
}
