package window

import "time"

// horizon is how far ahead a change is looked for. A window comes once a week; one
// whose times are skipped when clocks are changed comes the week after.
const horizon = 22 * 24 * time.Hour

// Set is the windows of one app, open when one of them is. An empty one is always open.
type Set []Window

// At says whether s is open at t, and when that changes; zero for never.
func (s Set) At(t time.Time) (open bool, change time.Time) {
	if len(s) == 0 {
		return true, time.Time{}
	}
	open = s.open(t)
	for at := t; at.Before(t.Add(horizon)); {
		next := s[0].boundary(at)
		for _, w := range s[1:] {
			if b := w.boundary(at); b.Before(next) {
				next = b
			}
		}
		if s.open(next) != open {
			return open, next
		}
		at = next
	}
	return open, time.Time{}
}

func (s Set) open(t time.Time) bool {
	for _, w := range s {
		if w.open(t) {
			return true
		}
	}
	return false
}

// open looks at the wall.
func (w Window) open(t time.Time) bool {
	t = t.In(w.zone)
	today := t.Weekday()
	now := t.Hour()*60 + t.Minute()
	if w.from < w.to {
		return w.days[today] && w.from <= now && now < w.to
	}
	yesterday := (today + 6) % 7
	return w.days[today] && now >= w.from || w.days[yesterday] && now < w.to
}

// boundary is the next moment after t at which w may open or close: one of its times,
// midnight, or a change of clocks.
func (w Window) boundary(t time.Time) time.Time {
	local := t.In(w.zone)
	// As long as clocks are not changed they run as fast as time does.
	now := time.Duration(local.Hour())*time.Hour + time.Duration(local.Minute())*time.Minute +
		time.Duration(local.Second())*time.Second + time.Duration(local.Nanosecond())
	wait := midnight*time.Minute - now
	for _, m := range [...]int{w.from, w.to} {
		if d := time.Duration(m)*time.Minute - now; d > 0 && d < wait {
			wait = d
		}
	}
	next := t.Add(wait)
	if _, end := local.ZoneBounds(); !end.IsZero() && end.After(t) && end.Before(next) {
		return end
	}
	return next
}
