package ban

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

type clock struct{ now time.Time }

func (c *clock) time() time.Time { return c.now }

func member(n int, at string) Suspect {
	s := Suspect{At: netip.MustParseAddrPort(at)}
	binary.BigEndian.PutUint64(s.Identity[:], uint64(n)+1)
	return s
}

func open(at string) Suspect { return Suspect{At: netip.MustParseAddrPort(at)} }

func TestWhomABanStrikes(t *testing.T) {
	for _, test := range []struct {
		name       string
		bad, other Suspect
		struck     bool
	}{
		{"a-member-elsewhere", member(1, "10.0.0.1:1000"), member(1, "10.0.0.2:2000"), true},
		{"another-behind-the-same-address", member(1, "10.0.0.1:1000"), member(2, "10.0.0.1:1001"), false},
		{"an-address-again", open("10.0.0.1:1000"), open("10.0.0.1:2000"), true},
		{"the-same-in-ipv6-form", open("10.0.0.1:1000"), open("[::ffff:10.0.0.1]:2000"), true},
		{"another-address", open("10.0.0.1:1000"), open("10.0.0.2:1000"), false},
		{"the-same-ipv6-network", open("[2001:db8::1]:1"), open("[2001:db8::2]:1"), true},
		{"another-ipv6-network", open("[2001:db8::1]:1"), open("[2001:db8:0:1::1]:1"), false},
		{"a-node-on-this-machine", open("127.0.0.1:1"), open("127.0.0.1:1"), true},
		{"another-node-on-this-machine", open("127.0.0.1:1"), open("127.0.0.1:2"), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &clock{time.Unix(1e9, 0)}
			l := New(c.time, test.bad.member())
			if !l.Welcome(test.bad) || !l.Welcome(test.other) {
				t.Fatal("somebody is banned to begin with")
			}
			first := l.Alias(test.bad)
			l.Prove(test.bad)
			s, d, ok := l.Found(first.Addr())
			if !ok || s != test.bad || d != Time {
				t.Fatalf("found %v for %v, %v", s, d, ok)
			}
			if l.Welcome(test.bad) || l.Welcome(test.other) == test.struck || l.Same(test.bad, test.other) != test.struck || l.Count() != 1 {
				t.Errorf("bad is welcome: %v; other: %v, want %v; %d bans", l.Welcome(test.bad), l.Welcome(test.other), !test.struck, l.Count())
			}
			if _, _, ok := l.Found(first.Addr()); ok {
				t.Error("it is found twice")
			}
			c.now = c.now.Add(Time - time.Second)
			if l.Welcome(test.bad) {
				t.Error("the ban ended early")
			}
			c.now = c.now.Add(time.Second)
			if !l.Welcome(test.bad) || !l.Welcome(test.other) || l.Count() != 0 {
				t.Error("the ban did not end")
			}
			// The engine never forgets what it banned.
			if again := l.Alias(test.bad); again == first {
				t.Errorf("the engine is shown %v again", again)
			}
			if !test.struck && l.Alias(test.other) == l.Alias(test.bad) {
				t.Error("two have one alias")
			}
		})
	}
}

func TestOpenFleetsShowRealAddresses(t *testing.T) {
	s := open("10.0.0.1:1000")
	if got := New(time.Now, false).Alias(s); got != s.At {
		t.Errorf("the alias is %v", got)
	}
}

func TestFreshKeysDoNotUndoABan(t *testing.T) {
	c := &clock{time.Unix(1e9, 0)}
	l := New(c.time, true)
	const at = "10.0.0.1:1000"
	l.Welcome(member(0, at))
	l.Welcome(member(1, at))
	l.Prove(member(0, at))
	l.Found(l.Alias(member(0, at)).Addr())
	welcome := func(from int) (n int) {
		for i := range 1000 {
			if l.Welcome(member(from+i, at)) {
				n++
			}
		}
		return n
	}
	if n := welcome(1000); n != newAfterBan {
		t.Errorf("%d fresh keys were welcome after a ban, want %d", n, newAfterBan)
	}
	if !l.Welcome(member(1, at)) || !l.Welcome(member(1000, "10.0.0.2:1")) {
		t.Error("those who were there before, or are elsewhere, are not welcome")
	}
	c.now = c.now.Add(perTime)
	if n := welcome(2000); n != newIdentities {
		t.Errorf("%d new keys were welcome when the ban was over, want %d", n, newIdentities)
	}
	l.Found(l.Alias(member(2000, at)).Addr())
	l.Lift()
	if !l.Welcome(member(2000, at)) || l.Count() != 0 {
		t.Error("the ban was not lifted")
	}
}

func TestNothingGrows(t *testing.T) {
	c := &clock{time.Unix(1e9, 0)}
	l := New(c.time, true)
	for i := range 3 * maxAliases {
		c.now = c.now.Add(time.Millisecond)
		s := member(i, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1).String())
		l.Welcome(s)
		if i%2 == 0 {
			l.Found(l.Alias(s).Addr())
		} else {
			l.Alias(s)
		}
	}
	if len(l.until) > maxBans || len(l.lives) > 2*maxBans || len(l.aliases) > maxAliases || len(l.order) > maxAliases || len(l.sources) > maxSources {
		t.Errorf("kept %d bans, %d lives, %d aliases (%d), %d sources", len(l.until), len(l.lives), len(l.aliases), len(l.order), len(l.sources))
	}
}

func TestBansWithoutProof(t *testing.T) {
	c := &clock{time.Unix(1e9, 0)}
	l := New(c.time, true)
	s := member(1, "10.0.0.1:1")
	for _, want := range []time.Duration{unproven, 2 * unproven, 4 * unproven} {
		if _, d, ok := l.Found(l.Alias(s).Addr()); !ok || d != want || l.Welcome(s) {
			t.Errorf("the ban is for %v, want %v", d, want)
		}
		c.now = c.now.Add(want)
		if !l.Welcome(s) {
			t.Errorf("after %v it still lasts", want)
		}
	}
	for range 30 {
		l.Found(l.Alias(s).Addr())
	}
	if _, d, _ := l.Found(l.Alias(s).Addr()); d != Time {
		t.Errorf("a ban is for %v at last, want %v", d, Time)
	}
	l.Pardon(s)
	if !l.Welcome(s) {
		t.Error("it is banned after it was pardoned")
	}
	l.Aside(s, time.Second)
	l.Aside(s, time.Hour)
	if l.Welcome(s) {
		t.Error("it is not left out")
	}
	if c.now = c.now.Add(time.Second); !l.Welcome(s) {
		t.Error("it is left out for longer than it was said first")
	}
}

// Who is dialled is known by an address until the handshake has said who it is.
func TestDialledMembers(t *testing.T) {
	c := &clock{time.Unix(1e9, 0)}
	l := New(c.time, true)
	at, neighbour := open("10.0.0.1:7801"), open("10.0.0.1:7802")
	shown := l.Alias(at)
	if shown == l.Alias(neighbour) || l.Real(shown) != at.At || l.Real(at.At) != at.At {
		t.Fatalf("the alias %v of %v stands for %v", shown, at.At, l.Real(shown))
	}
	bad := member(7, "10.0.0.1:7801")
	l.Turned(shown, bad)
	l.Prove(bad)
	if s, d, ok := l.Found(shown.Addr()); !ok || s != bad || d != Time {
		t.Fatalf("found %v for %v, %v", s, d, ok)
	}
	if l.Welcome(bad) || l.Welcome(member(7, "10.0.0.9:1")) || !l.Welcome(member(8, "10.0.0.1:7801")) || !l.Welcome(neighbour) {
		t.Error("the ban is not of the member that was found there")
	}
	if again := l.Alias(at); again == shown || l.Real(again) != at.At {
		t.Errorf("the engine would not dial %v again: it is shown %v, which stands for %v", at.At, again, l.Real(again))
	}
	if got := l.Real(netip.MustParseAddrPort("[100::1]:1")); got.IsValid() {
		t.Errorf("an alias of nobody stands for %v", got)
	}
}
