package lsd

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var (
	now    = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	eth0   = link{index: 2, name: "eth0", source: netip.MustParseAddr("192.0.2.1"), addrs: "192.0.2.1/24"}
	eth0v6 = link{index: 2, name: "eth0", source: netip.MustParseAddr("fd00::1"), addrs: "fd00::1/64"}
)

// A machine hears, and keeps what it found.
type machine struct {
	*Announcer
	found []find
}

// newMachine has torrent 0, incomplete, on eth0.
func newMachine(keys [][32]byte) *machine {
	m := new(machine)
	m.Announcer = newAnnouncer(Config{
		Addr: netip.MustParseAddrPort("[::]:7801"), Keys: keys,
		Found: func(h [20]byte, p netip.AddrPort, calls bool) { m.found = append(m.found, find{h, p, calls}) },
	})
	m.links = []link{eth0, eth0v6}
	m.know([]Torrent{{Infohash: hash(0)}}, now)
	return m
}

// says is what a neighbour at an address sends of torrent 0.
func says(keys [][32]byte, from string, port uint16) []byte {
	a := newAnnouncer(Config{Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), port), Keys: keys})
	all := a.datagrams(netip.MustParseAddr(from), [][20]byte{hash(0)})
	return all[0] // of the first key
}

func TestHearInAnOpenFleet(t *testing.T) {
	rows := []struct {
		name  string
		b     []byte
		from  string
		index int
		found string // the peer; empty if none
		want  Dropped
	}{
		{"neighbour", says(nil, "192.0.2.7", 7801), "192.0.2.7", 2, "192.0.2.7:7801", Dropped{}},
		{"neighbour-ipv6", says(nil, "fd00::7", 7801), "fd00::7", 2, "[fd00::7]:7801", Dropped{}},
		{"mapped", says(nil, "192.0.2.7", 7801), "::ffff:192.0.2.7", 2, "192.0.2.7:7801", Dropped{}},
		{"system-that-names-no-interface", says(nil, "192.0.2.7", 7801), "192.0.2.7", 0, "192.0.2.7:7801", Dropped{}},
		{"another-node-of-this-machine", says(nil, "192.0.2.1", 7802), "192.0.2.1", 2, "192.0.2.1:7802", Dropped{}},
		{"stock-client", []byte(stock + one + end), "192.0.2.7", 2, "192.0.2.7:6881", Dropped{}},
		{"own-address-and-port", says(nil, "192.0.2.1", 7801), "192.0.2.1", 2, "", Dropped{Own: 1}},
		{"victim-elsewhere", says(nil, "198.51.100.9", 22), "198.51.100.9", 2, "", Dropped{Elsewhere: 1}},
		{"loopback", says(nil, "127.0.0.1", 22), "127.0.0.1", 2, "", Dropped{Elsewhere: 1}},
		{"loopback-ipv6", says(nil, "::1", 22), "::1", 2, "", Dropped{Elsewhere: 1}},
		{"link-local", says(nil, "fe80::7", 22), "fe80::7%eth0", 2, "", Dropped{Elsewhere: 1}},
		{"multicast", says(nil, "239.192.152.143", 22), "239.192.152.143", 2, "", Dropped{Elsewhere: 1}},
		{"nobody", says(nil, "0.0.0.0", 22), "0.0.0.0", 2, "", Dropped{Elsewhere: 1}},
		{"by-an-interface-left-out", says(nil, "192.0.2.7", 7801), "192.0.2.7", 3, "", Dropped{Elsewhere: 1}},
		{"not-an-announcement", []byte("M-SEARCH * HTTP/1.1\r\n\r\n"), "192.0.2.7", 2, "", Dropped{Malformed: 1}},
		{"another-torrent", []byte(stock + "Infohash: ffffffffffffffffffffffffffffffffffffffff\r\n" + end), "192.0.2.7", 2, "", Dropped{}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(nil)
			m.hear(r.b, netip.MustParseAddr(r.from), r.index, now)
			m.check(t, r.found, r.want)
		})
	}
	t.Run("own-cookie", func(t *testing.T) {
		m := newMachine(nil)
		m.hear(m.datagrams(netip.MustParseAddr("192.0.2.9"), [][20]byte{hash(0)})[0], netip.MustParseAddr("192.0.2.9"), 2, now)
		m.check(t, "", Dropped{Own: 1})
	})
}

func (m *machine) check(t *testing.T, peer string, want Dropped) {
	t.Helper()
	var found []find
	if peer != "" {
		found = []find{{hash(0), netip.MustParseAddrPort(peer), false}}
	}
	if !slices.Equal(m.found, found) {
		t.Errorf("found %v, want %v", m.found, found)
	}
	if got := m.Stats(); got.Dropped != want || got.Heard != 1 || got.Found != int64(len(found)) {
		t.Errorf("counted %+v, want %+v dropped", got, want)
	}
}

func TestHearInAFleetWithAKey(t *testing.T) {
	old, next := keysOf(t, oneKey), keysOf(t, anotherKey)
	both, swapped := keysOf(t, oneKey, anotherKey), keysOf(t, anotherKey, oneKey)
	const at = "192.0.2.7"
	stranger := Dropped{Strangers: 1}
	change := func(b []byte, change func(*datagram)) []byte {
		d, err := parse(b)
		if err != nil {
			t.Fatal(err)
		}
		change(d)
		return d.encode(group4)
	}
	rows := []struct {
		name  string
		keys  [][32]byte // of who hears
		b     []byte
		from  string
		found string
		want  Dropped
	}{
		{"member", old, says(old, at, 7801), at, "192.0.2.7:7801", Dropped{}},
		{"member-ipv6", old, says(old, "fd00::7", 7801), "fd00::7", "[fd00::7]:7801", Dropped{}},
		{"member-of-another-network-here", old, says(old, "198.51.100.9", 7801), "198.51.100.9", "198.51.100.9:7801", Dropped{}},
		{"rotation-old-heard-by-both", both, says(old, at, 7801), at, "192.0.2.7:7801", Dropped{}},
		{"rotation-new-heard-by-both", both, says(next, at, 7801), at, "192.0.2.7:7801", Dropped{}},
		{"rotation-old-heard-by-swapped", swapped, says(old, at, 7801), at, "192.0.2.7:7801", Dropped{}},
		{"rotation-both-heard-by-old", old, says(both, at, 7801), at, "192.0.2.7:7801", Dropped{}},
		{"rotation-swapped-heard-by-new", next, says(swapped, at, 7801), at, "192.0.2.7:7801", Dropped{}},
		{"replayed-from-another-address", old, says(old, at, 7801), "192.0.2.66", "", stranger},
		{"no-mac", old, says(nil, at, 7801), at, "", stranger},
		{"wrong-key", old, says(next, at, 7801), at, "", stranger},
		{"address-replaced", old, change(says(old, at, 7801), func(d *datagram) { d.member = "192.0.2.66" + d.member[len(at):] }), "192.0.2.66", "", stranger},
		{"port-replaced", old, change(says(old, at, 7801), func(d *datagram) { d.port = 22 }), at, "", stranger},
		{"list-replaced", old, change(says(old, at, 7801), func(d *datagram) { d.list[0] = hash(9) }), at, "", stranger},
		{"list-extended", old, change(says(old, at, 7801), func(d *datagram) { d.list = append(d.list, hash(9)) }), at, "", stranger},
		{"mac-cut-short", old, change(says(old, at, 7801), func(d *datagram) { d.member = d.member[:len(d.member)-2] }), at, "", stranger},
		{"mac-empty", old, change(says(old, at, 7801), func(d *datagram) { d.member = at + " " }), at, "", stranger},
		{"mac-too-long", old, change(says(old, at, 7801), func(d *datagram) { d.member += "00" }), at, "", stranger},
		{"loopback-member", old, says(old, "127.0.0.1", 22), "127.0.0.1", "", Dropped{Elsewhere: 1}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(r.keys)
			m.hear(r.b, netip.MustParseAddr(r.from), 2, now)
			m.check(t, r.found, r.want)
		})
	}
	t.Run("infohash-in-the-clear", func(t *testing.T) {
		// A member that names a torrent as strangers do means none of ours.
		m := newMachine(old)
		d := &datagram{port: 7801, list: [][20]byte{hash(0)}}
		secret(old[0]).seal(d, netip.MustParseAddr(at))
		m.hear(d.encode(group4), netip.MustParseAddr(at), 2, now)
		m.check(t, "", Dropped{})
	})
}

// Everyone who holds two keys says everything under both.
func TestBothKeysAreAnnounced(t *testing.T) {
	a := newAnnouncer(Config{Addr: netip.MustParseAddrPort("[::]:7801"), Keys: keysOf(t, oneKey, anotherKey)})
	all := a.datagrams(netip.MustParseAddr("192.0.2.7"), [][20]byte{hash(0)})
	if len(all) != 2 {
		t.Fatalf("%d datagrams", len(all))
	}
	for i, key := range []string{oneKey, anotherKey} {
		m := newMachine(keysOf(t, key))
		m.hear(all[i], netip.MustParseAddr("192.0.2.7"), 2, now)
		m.check(t, "192.0.2.7:7801", Dropped{})
	}
}

// Whoever floods, from however many addresses and with whatever ports, fills no memory
// and causes only so many dials; and once it ends, neighbours are heard as before.
func TestFloodIsBounded(t *testing.T) {
	for _, r := range []struct {
		name   string
		spread bool // over addresses
	}{{"one-address", false}, {"spread-over-the-network", true}} {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(nil)
			m.links = []link{{index: 2, name: "eth0", source: netip.MustParseAddr("10.0.0.1"), addrs: "10.0.0.1/8"}}
			const count = 20_000
			for i := range uint32(count) { // in ten seconds
				from := netip.MustParseAddr("10.0.0.2")
				if r.spread {
					from = netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24+2+i)))
				}
				m.hear(says(nil, from.String(), uint16(1+i%60_000)), from, 2, now.Add(time.Duration(i)*500*time.Microsecond))
			}
			if n := len(m.ipv4.sources); n > maxSources {
				t.Errorf("%d sources are remembered", n)
			}
			if n := len(m.torrents[hash(0)].neighbours); n > maxNeighbours {
				t.Errorf("%d neighbours are remembered", n)
			}
			if n, most := len(m.found), offerBurst+11*offerRate; n == 0 || n > most {
				t.Errorf("%d peers were offered, %d are the most", n, most)
			}
			st := m.Stats()
			if st.Heard != count || st.Dropped.Flood < count*9/10 {
				t.Errorf("counted %+v", st)
			}
			m.found = nil
			m.hear(says(nil, "10.9.9.9", 7801), netip.MustParseAddr("10.9.9.9"), 2, now.Add(time.Minute))
			if len(m.found) != 1 {
				t.Error("a neighbour is not heard after the flood")
			}
			m.know([]Torrent{{Infohash: hash(0)}}, now.Add(time.Hour))
			if n := len(m.torrents[hash(0)].neighbours); n != 0 {
				t.Errorf("%d neighbours are remembered after an hour", n)
			}
		})
	}
}

// While one host floods, and whatever with, its neighbours are heard, each time they
// announce.
func TestOneFlooderDeafensNobody(t *testing.T) {
	const flooder, honest = "192.0.2.66", "192.0.2.7"
	keys := keysOf(t, oneKey)
	torrents := make([]Torrent, maxListed)
	for i := range torrents {
		torrents[i].Infohash = hash(byte(i))
	}
	everything := func(keys [][32]byte, from netip.Addr, port uint16) []byte {
		a := newAnnouncer(Config{Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), port), Keys: keys})
		all := make([][20]byte, len(torrents))
		for i, t := range torrents {
			all[i] = t.Infohash
		}
		return a.datagrams(from, all)[0]
	}
	rows := []struct {
		name string
		keys [][32]byte
		from func(i uint32) netip.Addr
		says func(from netip.Addr, port uint16) []byte
	}{
		{"nonsense", nil, only(flooder), func(netip.Addr, uint16) []byte { return []byte("nonsense") }},
		{"peers-on-all-ports", nil, only(flooder), func(from netip.Addr, port uint16) []byte { return everything(nil, from, port) }},
		{"as-if-from-elsewhere", nil, func(i uint32) netip.Addr { return spread("198.18.0.0", i) },
			func(from netip.Addr, port uint16) []byte { return everything(nil, from, port) }},
		{"stranger", keys, only(flooder), func(from netip.Addr, port uint16) []byte { return everything(nil, from, port) }},
		{"member", keys, only(flooder), func(from netip.Addr, port uint16) []byte { return everything(keys, from, port) }},
		{"as-if-it-were-a-loopback-peer", keys, only("127.0.0.1"), func(from netip.Addr, port uint16) []byte { return everything(keys, from, port) }},
		{"all-addresses-of-its-ipv6-network", nil, func(i uint32) netip.Addr { return spread("fd00::", i) },
			func(from netip.Addr, port uint16) []byte { return everything(nil, from, port) }},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			m := newMachine(r.keys)
			m.know(torrents, now)
			neighbour, peer := netip.MustParseAddr(honest), netip.MustParseAddrPort(honest+":7801")
			const aSecond = 2000 // datagrams
			var at []byte
			for i := range uint32(30 * aSecond) {
				clock := now.Add(time.Duration(i) * time.Second / aSecond)
				from := r.from(i)
				if i%500 == 0 { // the same is said by many
					at = r.says(from, uint16(1+i%60_000))
				}
				m.hear(at, from, 2, clock)
				if i%(5*aSecond) != 5*aSecond-1 {
					continue
				}
				m.found = nil
				m.hear(says(r.keys, honest, 7801), neighbour, 2, clock)
				if len(m.found) != 1 || m.found[0].infohash != hash(0) || m.found[0].peer != peer {
					t.Errorf("after %s a neighbour is not heard: %+v", clock.Sub(now), m.Stats())
				}
			}
		})
	}
}

func only(addr string) func(uint32) netip.Addr {
	return func(uint32) netip.Addr { return netip.MustParseAddr(addr) }
}

// spread is the i-th address after one.
func spread(addr string, i uint32) netip.Addr {
	b := netip.MustParseAddr(addr).AsSlice()
	low := b[len(b)-4:]
	binary.BigEndian.PutUint32(low, binary.BigEndian.Uint32(low)+2+i)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Who has everything dials those who look for it, and is left alone by others who have it.
func TestCompleteAnswersSeekers(t *testing.T) {
	m := newMachine(nil)
	m.know([]Torrent{{Infohash: hash(0), Complete: true}}, now)
	hear := func(at time.Duration) (found int) {
		m.found = nil
		m.hear(says(nil, "192.0.2.7", 7801), netip.MustParseAddr("192.0.2.7"), 2, now.Add(at))
		return len(m.found)
	}
	if hear(0) != 1 {
		t.Error("who is new is not dialled")
	}
	if hear(5*time.Minute) != 0 {
		t.Error("who only says that it is still there is dialled")
	}
	if hear(5*time.Minute+30*time.Second) != 1 {
		t.Error("who is looking for peers is not dialled")
	}
	// Of very many seekers some are dialled, by everyone who has it.
	dialled := 0
	for i := range 200 {
		from := netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)})
		m.found = nil
		m.hear(says(nil, from.String(), 7801), from, 2, now.Add(time.Hour+time.Duration(i)*100*time.Millisecond))
		dialled += len(m.found)
	}
	if dialled < answers-1 || dialled > 100 {
		t.Errorf("%d of 200 are dialled", dialled)
	}
}

// Who calls a second time has found too few, and is dialled by some of those who hear it,
// also by those who are not looking for anybody.
func TestCallsAreAnswered(t *testing.T) {
	for _, r := range []struct {
		name  string
		after time.Duration
		want  bool
	}{
		{"calls-again", firstWant, true},
		{"same-call-under-another-key", 0, false},
		{"is-still-there", idleEvery, false},
	} {
		t.Run(r.name, func(t *testing.T) {
			for _, complete := range []bool{false, true} {
				m := newMachine(nil)
				m.know([]Torrent{{Infohash: hash(0), Complete: complete}}, now)
				for _, at := range []time.Duration{0, r.after} {
					m.hear(says(nil, "192.0.2.7", 7801), netip.MustParseAddr("192.0.2.7"), 2, now.Add(at))
				}
				var calls []bool
				for _, f := range m.found {
					calls = append(calls, f.calls)
				}
				if slices.Contains(calls, true) != r.want || len(calls) == 0 || calls[0] {
					t.Errorf("complete %v: answered: %v", complete, calls)
				}
			}
		})
	}
	t.Run("of-many", func(t *testing.T) {
		answered := 0
		const seekers = 200
		m := newMachine(nil)
		for round := range 2 {
			for i := range seekers {
				from := netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)})
				m.hear(says(nil, from.String(), 7801), from, 2, now.Add(time.Duration(round*seekers+i)*100*time.Millisecond))
			}
		}
		for _, f := range m.found {
			if f.calls {
				answered++
			}
		}
		// About 8; more than 40 of 200 is one in 10^17.
		if answered > 40 {
			t.Errorf("%d of %d are answered", answered, seekers)
		}
	})
}

func TestInterfaces(t *testing.T) {
	for _, r := range []struct {
		patterns Interfaces
		yes, no  []string
	}{
		{nil, []string{"eth0", "docker0"}, nil},
		{Interfaces{"eth*", "!docker*"}, []string{"eth0"}, []string{"docker0", "wlan0"}},
		{Interfaces{"!docker*"}, []string{"eth0", "wlan0"}, []string{"docker0"}},
		{Interfaces{"e*", "!eth1"}, []string{"eth0"}, []string{"eth1", "wlan0"}},
		{Interfaces{"!eth1", "e*"}, []string{"eth0"}, []string{"eth1"}},
	} {
		for _, name := range r.yes {
			if !r.patterns.match(name) {
				t.Errorf("%q leaves out %s", r.patterns, name)
			}
		}
		for _, name := range r.no {
			if r.patterns.match(name) {
				t.Errorf("%q chooses %s", r.patterns, name)
			}
		}
	}
	for _, bad := range []string{"", "!", "[", "!["} {
		if err := (Interfaces{"eth*", bad}).Validate(); err == nil {
			t.Errorf("%q is a pattern", bad)
		}
		if _, err := New(Config{Interfaces: Interfaces{bad}}); err == nil {
			t.Errorf("%q is a pattern", bad)
		}
	}
}
