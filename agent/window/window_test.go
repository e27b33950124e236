package window

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for _, good := range []string{
		"Mon-Fri 22:00-05:00 Europe/Berlin", "Sat-Sun any", "sat,SUN Any UTC", "Fri-Mon 00:00-24:00", "Wed 23:59-24:00", "Mon 13:00-12:59 America/Argentina/Buenos_Aires",
	} {
		w, err := Parse("  " + strings.ReplaceAll(good, " ", "\t ") + " ")
		if err != nil || w.String() != good {
			t.Errorf("%q: read as %q, %v", good, w, err)
		}
	}
	for text, want := range map[string]string{
		"":                         "not days, times and a zone",
		"Mon-Fri":                  "not days, times and a zone",
		"Mon 1:00-2:00 UTC x":      "not days, times and a zone",
		"Mon-Friday any":           `"Friday" is not one of Mon`,
		"Mon, Tue any":             `"" is not one of Mon`,
		"Mon-Tue-Wed any":          `"Tue-Wed" is not one of Mon`,
		"daily any":                `"daily" is not one of Mon`,
		"Mon 22:00":                `"22:00" is not two times`,
		"Mon 22-05":                `"22" is not a time`,
		"Mon 9:00-10:00":           `"9:00" is not a time`,
		"Mon +9:00-10:00":          `"+9:00" is not a time`,
		"Mon 09:60-10:00":          `"09:60" is not a time`,
		"Mon 23:00-24:01":          `"24:01" is not a time`,
		"Mon 22:00-22:00":          "has no length",
		"Mon 24:00-05:00":          "has no length",
		"Mon any Europe/Atlantis":  `no time zone "Europe/Atlantis"`,
		"Mon any ../../etc/passwd": "no time zone",
		"Mon any Local":            "no zone",
		"Mon any " + strings.Repeat("0", maxText): "too long",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestAt(t *testing.T) {
	berlin := load(t, "Europe/Berlin")
	rows := []struct {
		fact    string
		windows []string
		at      string // on the wall in Berlin, or with an offset
		open    bool
		change  string
	}{
		{"before-it-opens", []string{"Mon-Fri 22:00-05:00 Europe/Berlin"}, "2026-11-18 21:59:59", false, "2026-11-18 22:00:00"},
		{"as-it-opens", []string{"Mon-Fri 22:00-05:00 Europe/Berlin"}, "2026-11-18 22:00:00", true, "2026-11-19 05:00:00"},
		{"after-midnight", []string{"Mon-Fri 22:00-05:00 Europe/Berlin"}, "2026-11-19 04:59:59", true, "2026-11-19 05:00:00"},
		{"as-it-closes", []string{"Mon-Fri 22:00-05:00 Europe/Berlin"}, "2026-11-19 05:00:00", false, "2026-11-19 22:00:00"},
		{"saturday-morning-is-friday-night", []string{"Mon-Fri 22:00-05:00 Europe/Berlin"}, "2026-11-21 04:00:00", true, "2026-11-21 05:00:00"},
		{"over-the-weekend", []string{"Mon-Fri 22:00-05:00 Europe/Berlin"}, "2026-11-21 05:00:00", false, "2026-11-23 22:00:00"},
		{"sunday-evening-is-no-monday", []string{"Mon-Fri 22:00-05:00 Europe/Berlin"}, "2026-11-22 23:00:00", false, "2026-11-23 22:00:00"},
		{"monday-morning-was-sunday-night", []string{"Mon-Fri 22:00-05:00 Europe/Berlin"}, "2026-11-23 04:00:00", false, "2026-11-23 22:00:00"},
		{"two-whole-days-are-one-stretch", []string{"Sat-Sun any Europe/Berlin"}, "2026-11-21 00:00:00", true, "2026-11-23 00:00:00"},
		{"days-across-the-week-end", []string{"Sat-Mon any Europe/Berlin"}, "2026-11-21 12:00:00", true, "2026-11-24 00:00:00"},
		{"windows-that-touch-are-one", []string{"Fri 22:00-24:00 Europe/Berlin", "Sat any Europe/Berlin"}, "2026-11-20 23:00:00", true, "2026-11-22 00:00:00"},
		{"windows-that-overlap-are-one", []string{"Wed 10:00-12:00 Europe/Berlin", "Wed 11:00-13:00 Europe/Berlin"}, "2026-11-18 10:30:00", true, "2026-11-18 13:00:00"},
		{"the-first-of-several", []string{"Sun any Europe/Berlin", "Thu 01:00-02:00 Europe/Berlin"}, "2026-11-18 10:00:00", false, "2026-11-19 01:00:00"},
		{"zones-of-their-own", []string{"Wed 03:00-04:00 America/New_York"}, "2026-11-18 08:30:00", false, "2026-11-18 09:00:00"},
		{"always", []string{"Mon-Sun any Europe/Berlin"}, "2026-11-18 08:30:00", true, ""},
		{"none-is-always", nil, "2026-11-18 08:30:00", true, ""},

		// On 29 March 2026 02:00 is followed by 03:00, on 25 October 03:00 by 02:00.
		{"begins-in-the-gap", []string{"Sun 02:30-04:00 Europe/Berlin"}, "2026-03-29 01:59:00", false, "2026-03-29 03:00:00"},
		{"ends-in-the-gap", []string{"Sun 01:00-02:30 Europe/Berlin"}, "2026-03-29 01:30:00", true, "2026-03-29 03:00:00"},
		{"all-in-the-gap-never-comes", []string{"Sun 02:15-02:45 Europe/Berlin"}, "2026-03-28 12:00:00", false, "2026-04-05 02:15:00"},
		{"across-the-gap", []string{"Sat 22:00-05:00 Europe/Berlin"}, "2026-03-28 23:00:00", true, "2026-03-29 05:00:00"},
		{"across-the-overlap", []string{"Sat 22:00-05:00 Europe/Berlin"}, "2026-10-24 23:00:00", true, "2026-10-25 05:00:00"},
		{"twice-in-the-overlap-first", []string{"Sun 02:15-02:45 Europe/Berlin"}, "2026-10-25T02:20:00+02:00", true, "2026-10-25T02:45:00+02:00"},
		{"twice-in-the-overlap-between", []string{"Sun 02:15-02:45 Europe/Berlin"}, "2026-10-25T02:50:00+02:00", false, "2026-10-25T02:15:00+01:00"},
		{"twice-in-the-overlap-second", []string{"Sun 02:15-02:45 Europe/Berlin"}, "2026-10-25T02:20:00+01:00", true, "2026-10-25T02:45:00+01:00"},
		// In Beirut midnight of 29 March 2026 is skipped, in Apia a whole day was.
		{"midnight-skipped", []string{"Sun any Asia/Beirut"}, "2026-03-28T23:30:00+02:00", false, "2026-03-29T01:00:00+03:00"},
		{"a-day-skipped", []string{"Fri any Pacific/Apia"}, "2011-12-29T12:00:00-10:00", false, "2012-01-06T00:00:00+14:00"},
	}
	for _, r := range rows {
		t.Run(r.fact, func(t *testing.T) {
			var s Set
			for _, text := range r.windows {
				w, err := Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				s = append(s, w)
			}
			open, change := s.At(moment(t, r.at, berlin))
			if want := moment(t, r.change, berlin); open != r.open || !change.Equal(want) {
				t.Errorf("open %v until %v; want %v until %v", open, change.In(berlin), r.open, want)
			}
		})
	}
}

func load(t *testing.T, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func moment(t *testing.T, text string, loc *time.Location) time.Time {
	t.Helper()
	if text == "" {
		return time.Time{}
	}
	at, err := time.ParseInLocation(time.DateTime, text, loc)
	if err != nil {
		at, err = time.Parse(time.RFC3339, text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// What is said of the next change is true: nothing changes before it, and then it does.
func FuzzWindow(f *testing.F) {
	f.Add("Mon-Fri 22:00-05:00 Europe/Berlin", int64(1774749600))
	f.Add("Sat-Sun any", int64(0))
	f.Add("Sun 02:15-02:45 Europe/Berlin", int64(1792886400))
	f.Add("Fri any Pacific/Apia", int64(1325152800))
	f.Add("Mon 24:00-00:00 Local", int64(-1))
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		w, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(w.String()); err != nil || again.String() != w.String() || again.days != w.days || again.from != w.from || again.to != w.to {
			t.Fatalf("%q is written as %q and read as %q, %v", text, w, again, err)
		}
		at := time.Unix(unix%(1<<33), 0)
		open, change := Set{w}.At(at)
		if change.IsZero() {
			change = at.Add(horizon)
		} else if now, _ := (Set{w}).At(change); now == open || !change.After(at) {
			t.Fatalf("%q at %v: open %v, and still so at the change %v", w, at, open, change)
		}
		for step := at; step.Before(change); step = step.Add(7 * time.Minute) {
			if w.open(step) != open {
				t.Fatalf("%q at %v: open %v, but not at %v, before the change %v", w, at, open, step, change)
			}
		}
	})
}
