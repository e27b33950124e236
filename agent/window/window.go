// Package window tells when a machine's maintenance windows are open.
//
// A window is open whenever a clock on the wall of its time zone shows one of its
// times on one of its days, and at no other moment. So nobody has to know what
// happens when clocks are changed: a time that is skipped never comes, one that comes
// twice counts twice, and a window across midnight belongs to the day it begins on.
// A machine needs no zone data of its own: the program brings them along.
package window

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a machine may have none
)

const (
	maxText = 256 // of one window; "Mon-Fri 22:00-05:00 Europe/Berlin" has 33

	midnight = 24 * 60 // in minutes
)

// Window is one maintenance window. The zero value is never open; Parse makes others.
type Window struct {
	days     [7]bool // by time.Weekday: the days it begins on
	from, to int     // minutes since midnight; to is below from across midnight
	zone     *time.Location
	text     string // as it was written
}

var dayNames = [7]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

// Parse reads DAYS TIMES [ZONE]: days as "Mon-Fri" or "Sat,Sun", in English and in
// either case; times as "22:00-05:00", which goes on after midnight, or "any"; and a
// zone as "Europe/Berlin" or "UTC". Without a zone it is the machine's own.
func Parse(s string) (Window, error) {
	w, err := parse(s)
	if err != nil {
		return Window{}, fmt.Errorf(`%w: a window is written "Mon-Fri 22:00-05:00 Europe/Berlin" or "Sat-Sun any"`, err)
	}
	return w, nil
}

func parse(s string) (w Window, err error) {
	if len(s) > maxText {
		return w, fmt.Errorf("a window of %d characters is too long", len(s))
	}
	words := strings.Fields(s)
	if len(words) < 2 || len(words) > 3 {
		return w, fmt.Errorf("%q is not days, times and a zone", s)
	}
	if w.days, err = parseDays(words[0]); err != nil {
		return w, err
	}
	if strings.EqualFold(words[1], "any") {
		w.to = midnight
	} else if w.from, w.to, err = parseTimes(words[1]); err != nil {
		return w, err
	}
	w.zone = time.Local
	if len(words) == 3 {
		if w.zone, err = zone(words[2]); err != nil {
			return w, err
		}
	}
	w.text = strings.Join(words, " ")
	return w, nil
}

func parseDays(s string) (days [7]bool, err error) {
	for part := range strings.SplitSeq(s, ",") {
		first, last, both := strings.Cut(part, "-")
		if !both {
			last = first
		}
		from, err := parseDay(first)
		if err != nil {
			return days, err
		}
		to, err := parseDay(last)
		if err != nil {
			return days, err
		}
		for d := from; ; d = (d + 1) % 7 { // "Sat-Mon" goes on after the week's end
			days[d] = true
			if d == to {
				break
			}
		}
	}
	return days, nil
}

func parseDay(s string) (int, error) {
	for i, name := range dayNames {
		if strings.EqualFold(s, name) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%q is not one of Mon Tue Wed Thu Fri Sat Sun", s)
}

func parseTimes(s string) (from, to int, err error) {
	first, last, both := strings.Cut(s, "-")
	if !both {
		return 0, 0, fmt.Errorf("%q is not two times", s)
	}
	if from, err = parseTime(first); err != nil {
		return 0, 0, err
	}
	if to, err = parseTime(last); err != nil {
		return 0, 0, err
	}
	if from == to || from == midnight {
		return 0, 0, fmt.Errorf(`%q has no length; for the whole day write "any"`, s)
	}
	return from, to, nil
}

// parseTime reads HH:MM; 24:00 is the end of a day.
func parseTime(s string) (int, error) {
	if len(s) == 5 && s[2] == ':' {
		h, herr := strconv.ParseUint(s[:2], 10, 8)
		m, merr := strconv.ParseUint(s[3:], 10, 8)
		if t := int(h)*60 + int(m); herr == nil && merr == nil && m < 60 && t <= midnight {
			return t, nil
		}
	}
	return 0, fmt.Errorf("%q is not a time between 00:00 and 24:00", s)
}

// zone loads a time zone by its name in the zone database.
func zone(name string) (*time.Location, error) {
	if name == "Local" {
		return nil, fmt.Errorf(`%q is no zone; without one it is the machine's own`, name)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("there is no time zone %q", name)
	}
	return loc, nil
}

// String is w as it was written.
func (w Window) String() string { return w.text }

// UnmarshalText is Parse.
func (w *Window) UnmarshalText(b []byte) (err error) {
	*w, err = Parse(string(b))
	return err
}

// MarshalText is String.
func (w Window) MarshalText() ([]byte, error) { return []byte(w.text), nil }
