package fleet

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const maxAddresses = 4096 // whose pace is kept

// addresses bounds how often something comes from each address.
type addresses struct {
	every rate.Limit
	burst int

	mu   sync.Mutex // guards from
	from map[netip.Addr]*rate.Limiter
}

func newAddresses(every rate.Limit, burst int) *addresses {
	return &addresses{every: every, burst: burst, from: map[netip.Addr]*rate.Limiter{}}
}

// allow reports whether one more may come from a.
func (l *addresses) allow(a netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.from[a]
	if p == nil {
		if len(l.from) >= maxAddresses {
			// Who has been quiet needs no entry. If everybody is loud, all begin again: a
			// table that grows would be worse.
			for o, p := range l.from {
				if p.TokensAt(now) >= float64(l.burst) {
					delete(l.from, o)
				}
			}
			if len(l.from) >= maxAddresses {
				clear(l.from)
			}
		}
		p = rate.NewLimiter(l.every, l.burst)
		l.from[a] = p
	}
	return p.AllowN(now, 1)
}
