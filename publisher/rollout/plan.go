package rollout

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
)

// What a plan says where its author does not.
const (
	DefaultSoak         = 30 * time.Minute
	DefaultStopAtFailed = 5 // percent
	DefaultMinReports   = defaultMinReports

	maxWaves = 64                   // as a manifest takes
	maxWave  = 1024                 // bytes of its text
	longest  = 365 * 24 * time.Hour // of a time or a soak
)

// Plan is a rollout as a person writes it down. The zero value is everyone at once.
type Plan struct {
	// Waves are the waves in their order: "10%" is a tenth of the machines, "ring:canary"
	// those of a ring, "ring:early+25%" both. "@4h" after it is the least time from the start;
	// without, a wave opens no sooner than a soak after the one before. Each wave adds
	// machines to those before, and the last one has all.
	Waves []string
	// Soak is the least time that a wave stands before the next opens; zero means
	// DefaultSoak. Whole seconds.
	Soak time.Duration
	// StopAtFailed is the share of failed machines, in percent, at which the rollout is
	// held; zero means DefaultStopAtFailed.
	StopAtFailed int
	// MinReports is how many reports decide something; zero means DefaultMinReports.
	MinReports int
}

// Rollout is the plan as it is signed, from start on, paused or not. gated says that the
// channel has a beacon: then every wave but the first has a gate. Codes: usage.
func (p *Plan) Rollout(gated, paused bool, start time.Time) (*manifest.Rollout, error) {
	switch {
	case len(p.Waves) == 0:
		return nil, nil
	case len(p.Waves) > maxWaves:
		return nil, bad("a plan of %d waves", len(p.Waves)).Line("At most %d fit a manifest.", maxWaves)
	case p.Soak < 0 || p.Soak > longest || p.Soak%time.Second != 0:
		return nil, bad("a soak of %s: whole seconds are wanted, a year at most", p.Soak)
	case p.StopAtFailed < 0 || p.StopAtFailed > 100:
		return nil, bad("a stop at %d %% failed: 1%% to 100%% are wanted", p.StopAtFailed)
	case p.MinReports < 0:
		return nil, bad("a plan that %d reports decide", p.MinReports)
	}
	soak := or(p.Soak, DefaultSoak)
	salt := make([]byte, 8)
	rand.Read(salt) // never fails
	r := &manifest.Rollout{
		Salt: hex.EncodeToString(salt), Start: start, Paused: paused,
		Stop: &manifest.Stop{
			FailedPercent: int64(or(p.StopAtFailed, DefaultStopAtFailed)), MinReports: int64(or(p.MinReports, DefaultMinReports)),
		},
	}
	rings := map[string]int{}
	before := manifest.Wave{}
	for i, text := range p.Waves {
		w, timed, err := readWave(text)
		if err != nil {
			return nil, err
		}
		switch {
		case i > 0 && !timed:
			w.After = before.After + soak
		case i > 0 && w.After <= before.After:
			return nil, bad("wave %d, %q, would not open after wave %d", i+1, text, i).
				Line("Wave %d opens %s after the start.", i, before.After).Do("give it a later time: %s@%s", bare(text), before.After+time.Hour)
		}
		if before.Percent == 100 {
			return nil, bad("wave %d, %q, has nobody that wave %d has not", i+1, text, i)
		}
		if w.Percent != 0 && w.Percent <= before.Percent {
			return nil, bad("wave %d, %q, has nobody that is not in the %d%% before it", i+1, text, before.Percent).
				Do("a wave's share counts the waves before: 10%%,50%%,100%%")
		}
		for _, ring := range w.Rings {
			if n := rings[ring]; n != 0 {
				return nil, bad("ring %q is in wave %d and in wave %d", ring, n, i+1)
			}
			rings[ring] = i + 1
		}
		if gated && i > 0 {
			w.Gate, w.Soak = manifest.GateBeacon, soak
		}
		r.Waves = append(r.Waves, w)
		share := max(w.Percent, before.Percent)
		before = w
		before.Percent = share
	}
	if before.Percent != 100 {
		return nil, bad("the plan leaves machines out: its waves reach %d%% and the rings it names", before.Percent).
			Line("Who is in no wave would never get the release.").Do("end with everyone: --waves %s,100%%", strings.Join(p.Waves, ","))
	}
	return r, nil
}

// readWave reads one wave; timed says that it has a time of its own.
func readWave(text string) (w manifest.Wave, timed bool, err error) {
	if len(text) > maxWave {
		return w, false, bad("a wave of %d bytes", len(text))
	}
	who, at, timed := strings.Cut(strings.TrimSpace(text), "@")
	if timed {
		w.After, err = time.ParseDuration(at)
		if err != nil || w.After < 0 || w.After > longest || w.After%time.Second != 0 {
			return w, false, bad("%q is no time from the start in %q: write 30m or 4h", at, text)
		}
	}
	var names []string
	for _, part := range strings.Split(who, "+") {
		if ring, ok := strings.CutPrefix(part, "ring:"); ok {
			if !manifest.ValidName(ring) {
				return w, false, bad("%q is no name of a ring, in %q", ring, text).Line("A name is 1 to 64 of a-z, 0-9, dot, underscore and hyphen.")
			}
			w.Rings, names = append(w.Rings, ring), append(names, ring)
			continue
		}
		digits, ok := strings.CutSuffix(part, "%")
		n, err := strconv.Atoi(digits)
		if !ok || err != nil || n < 1 || n > 100 || digits[0] == '+' {
			return w, false, bad("%q is no wave", text).Do("write ring:NAME or 1%% to 100%%, such as --waves ring:canary,10%%,100%%")
		}
		if w.Percent != 0 {
			return w, false, bad("%q has two shares", text)
		}
		w.Percent = n
	}
	switch {
	case len(names) > 0:
		w.Name = strings.Join(names, ".")
	case w.Percent == 100:
		w.Name = "everyone"
	default:
		w.Name = fmt.Sprintf("%d-percent", w.Percent)
	}
	if !manifest.ValidName(w.Name) {
		w.Name = names[0]
	}
	return w, timed, nil
}

func bare(text string) string {
	who, _, _ := strings.Cut(text, "@")
	return who
}

func bad(format string, args ...any) *fault.Error {
	return fault.New(fault.Usage, format, args...).Line("Nothing was signed.")
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
