package swarm_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"shoal/swarm"
	"shoal/swarm/fleet"
	"shoal/swarm/swarmtest"
)

func newKeys(t testing.TB) *fleet.Keys {
	t.Helper()
	k, err := fleet.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// member is a new machine of the fleet with the keys k.
func member(t testing.TB, k *fleet.Keys) *fleet.Member {
	t.Helper()
	m, err := k.Join(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMembersFetchFromEachOther(t *testing.T) {
	k := newKeys(t)
	c := newContent(t, 3<<20+5)
	seed := newSeed(t, c, swarm.Config{Fleet: member(t, k)})
	n := newNode(t, swarm.Config{Fleet: member(t, k), Origins: []string{seed.Addr().String()}})
	dst := filepath.Join(t.TempDir(), "got")
	got, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: []string{seed.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
	if got.Origin-got.Wasted != int64(len(c.data)) {
		t.Errorf("counted %+v", got)
	}
	if got := n.Stats().Refused; got != (swarm.Refused{}) {
		t.Errorf("it refused %+v", got)
	}
}

// A stranger is one who knows everything about the fleet but its key.
type stranger struct {
	name string
	// speak tries what it can on a connection to a member, and returns what it was told.
	speak func(t *testing.T, c net.Conn, infohash [20]byte) []byte
}

// readAll returns everything that comes before the other end hangs up; it must.
func readAll(t *testing.T, c net.Conn) []byte {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("it was left hanging on")
	}
	return b
}

func handshakeFor(infohash [20]byte) []byte {
	b := append([]byte("\x13BitTorrent protocol"), make([]byte, 8)...)
	return append(append(b, infohash[:]...), "-XX0000-abcdefghijkl"...)
}

// overTLS speaks as a stranger that has a certificate of its own making, or none.
func overTLS(config *tls.Config) func(*testing.T, net.Conn, [20]byte) []byte {
	return func(t *testing.T, c net.Conn, infohash [20]byte) []byte {
		config := config.Clone()
		config.InsecureSkipVerify, config.VerifyConnection = true, nil // it wants in, not safety
		s := tls.Client(c, config)
		s.SetDeadline(time.Now().Add(patience))
		if s.Handshake() != nil {
			return nil
		}
		s.Write(handshakeFor(infohash))
		return readAll(t, s)
	}
}

func TestStrangersGetNothing(t *testing.T) {
	other := member(t, newKeys(t))
	rows := []stranger{
		{"plain-bittorrent", func(t *testing.T, c net.Conn, infohash [20]byte) []byte {
			c.Write(handshakeFor(infohash))
			return readAll(t, c)
		}},
		{"obfuscated-bittorrent", func(t *testing.T, c net.Conn, _ [20]byte) []byte {
			c.Write(bytes.Repeat([]byte{0xa5}, 96)) // a key exchange of MSE looks like noise
			return readAll(t, c)
		}},
		{"http", func(t *testing.T, c net.Conn, _ [20]byte) []byte {
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			return readAll(t, c)
		}},
		{"tls-without-a-certificate", overTLS(&tls.Config{NextProtos: other.Dialling().NextProtos})},
		{"tls-with-another-fleets-key", overTLS(other.Dialling())},
		{"tls-1.2", overTLS(&tls.Config{MaxVersion: tls.VersionTLS12})},
	}
	c := newContent(t, 1<<20)
	seed := newSeed(t, c, swarm.Config{Fleet: member(t, newKeys(t))})
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			for _, infohash := range [][20]byte{c.info.Ref().Infohash, {}} { // one it has, and one nobody has
				nc, err := net.Dial("tcp", seed.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				if got := r.speak(t, nc, infohash); len(got) > 0 {
					t.Errorf("%x got %d bytes: %.80q", infohash[:4], len(got), got)
				}
			}
		})
	}
	eventually(t, "not all were counted as refused", func() bool {
		st := seed.Stats()
		return st.Refused.Plain >= 6 && st.Refused.Strangers >= 6
	})
	st := seed.Stats()
	if st.Given.Sum() != 0 || st.Members != 0 {
		t.Errorf("refused %+v, gave %d bytes, counts %d members", st.Refused, st.Given.Sum(), st.Members)
	}
}

// A node with a key fetches nothing from peers without it, whichever side dials.
func TestNoFetchAcrossFleets(t *testing.T) {
	c := newContent(t, 1<<20)
	ours := newKeys(t)
	honest := newSeed(t, c, swarm.Config{Fleet: member(t, ours)})
	open := newSeed(t, c, swarm.Config{})
	foreign := newSeed(t, c, swarm.Config{Fleet: member(t, newKeys(t))})
	plain := swarmtest.NewPeer(t, "127.0.0.1:0", c.info.Ref().Infohash, c.info.Pieces(), func(_, _, _ uint32) []byte { return nil })
	n := newNode(t, swarm.Config{Fleet: member(t, ours)})
	dst := filepath.Join(t.TempDir(), "got")
	o := swarm.FetchOptions{Peers: []string{open.Addr().String(), foreign.Addr().String(), plain.Addr, honest.Addr().String()}}
	if _, err := n.Fetch(withPatience(t), c.info, dst, o); err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
	if got := open.Stats().Given.Sum() + foreign.Stats().Given.Sum() + plain.Requests.Load(); got != 0 {
		t.Errorf("peers outside of the fleet gave, or were asked for, %d", got)
	}
}

// Each of the rounds in which a fleet key is replaced leaves machines of two rounds
// beside each other.
func TestFetchWhileTheKeyIsReplaced(t *testing.T) {
	old, fresh := newKeys(t), newKeys(t)
	both := func(first, second *fleet.Keys) *fleet.Keys {
		t.Helper()
		var text []byte
		for _, k := range []*fleet.Keys{first, second} {
			path := filepath.Join(t.TempDir(), "key")
			if err := k.Write(path); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, b...)
		}
		k, err := fleet.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	added, swapped := both(old, fresh), both(fresh, old)
	c := newContent(t, 300<<10)
	for _, r := range []struct {
		name string
		a, b *fleet.Keys
	}{{"one-has-added-it", old, added}, {"one-has-swapped", added, swapped}, {"one-has-removed-the-old", swapped, fresh}} {
		for _, way := range [][2]*fleet.Keys{{r.a, r.b}, {r.b, r.a}} {
			t.Run(r.name, func(t *testing.T) {
				seed := newSeed(t, c, swarm.Config{Fleet: member(t, way[0])})
				n := newNode(t, swarm.Config{Fleet: member(t, way[1])})
				dst := filepath.Join(t.TempDir(), "got")
				if _, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: []string{seed.Addr().String()}}); err != nil {
					t.Fatal(err)
				}
				c.check(t, dst)
			})
		}
	}
}

// Hundreds of connections that begin the TLS handshake and do not go on keep no member
// out, and are gone when their time is over.
func TestSlowHandshakesKeepNobodyOut(t *testing.T) {
	t.Parallel() // it takes as long as a handshake may
	k := newKeys(t)
	c := newContent(t, 1<<20)
	seed := newSeed(t, c, swarm.Config{Fleet: member(t, k)})
	const slow = 400
	var ended sync.WaitGroup
	for i := range slow {
		nc, err := net.Dial("tcp", seed.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		// The head of a record that holds a ClientHello, which never comes: at once, or
		// byte by byte.
		hello := []byte{22, 3, 1, 1, 0, 1, 0, 0, 0xfc}
		nc.Write(hello[:1+i%len(hello)])
		ended.Go(func() {
			if b := readAll(t, nc); len(b) > 0 && b[0] != 21 { // an alert is no content
				t.Errorf("it was told %d bytes", len(b))
			}
		})
	}
	n := newNode(t, swarm.Config{Fleet: member(t, k)})
	dst := filepath.Join(t.TempDir(), "got")
	if _, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: []string{seed.Addr().String()}}); err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
	ended.Wait()
	// Whoever is closed to make room sees that before it is counted.
	eventually(t, "all are counted", func() bool { return seed.Stats().Refused.Unfinished >= slow })
	if got := seed.Stats().Refused; got.Plain+got.Strangers != 0 {
		t.Errorf("of %d that never finished it counts %+v", slow, got)
	}
}
