package lsd

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shoal/swarm/fleet"
)

const (
	oneKey     = "shoal-fleet-1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
	anotherKey = "shoal-fleet-1:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8"
)

// keysOf are the keys for announcements that follow from a key file.
func keysOf(t testing.TB, file ...string) [][32]byte {
	t.Helper()
	k, err := fleet.Parse([]byte(strings.Join(file, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k.Join("")
	if err != nil {
		t.Fatal(err)
	}
	return m.LANKeys()
}

func hash(n byte) (h [20]byte) {
	for i := range h {
		h[i] = n + byte(i)
	}
	return h
}

const (
	stock = "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\n"
	one   = "Infohash: 000102030405060708090a0b0c0d0e0f10111213\r\n"
	end   = "\r\n\r\n"
)

func TestParse(t *testing.T) {
	rows := []struct {
		name, text string
		want       *datagram // nil if refused
	}{
		{"stock", stock + one + end, &datagram{port: 6881, list: [][20]byte{hash(0)}}},
		{"capital-digits", stock + strings.ToUpper(one) + end, &datagram{port: 6881, list: [][20]byte{hash(0)}}},
		{"several", stock + one + "Infohash: 0102030405060708090a0b0c0d0e0f1011121314\r\n" + end, &datagram{port: 6881, list: [][20]byte{hash(0), hash(1)}}},
		{"cookie", stock + one + "cookie: abc\r\n" + end, &datagram{port: 6881, list: [][20]byte{hash(0)}, cookie: "abc"}},
		{"endless-cookie", stock + one + "cookie: " + strings.Repeat("c", maxCookie+1) + end, &datagram{port: 6881, list: [][20]byte{hash(0)}}},
		{"unknown-header", stock + one + "X-Else: yes\r\n" + end, &datagram{port: 6881, list: [][20]byte{hash(0)}}},
		{"member", stock + one + "shoal-member: 192.0.2.7 00\r\n" + end, &datagram{port: 6881, list: [][20]byte{hash(0)}, member: "192.0.2.7 00"}},
		{"one-empty-line", stock + one + "\r\n", &datagram{port: 6881, list: [][20]byte{hash(0)}}},
		{"nothing", "", nil},
		{"no-end", stock + one, nil},
		{"other-request", "M-SEARCH * HTTP/1.1\r\nPort: 1\r\n" + one + end, nil},
		{"other-version", strings.Replace(stock, "1.1", "2.0", 1) + one + end, nil},
		{"no-infohash", stock + end, nil},
		{"no-port", "BT-SEARCH * HTTP/1.1\r\n" + one + end, nil},
		{"port-zero", "BT-SEARCH * HTTP/1.1\r\nPort: 0\r\n" + one + end, nil},
		{"port-too-high", "BT-SEARCH * HTTP/1.1\r\nPort: 65536\r\n" + one + end, nil},
		{"port-signed", "BT-SEARCH * HTTP/1.1\r\nPort: +1\r\n" + one + end, nil},
		{"port-with-host", "BT-SEARCH * HTTP/1.1\r\nPort: 192.0.2.1:80\r\n" + one + end, nil},
		{"two-ports", stock + "Port: 22\r\n" + one + end, nil},
		{"two-members", stock + one + "Shoal-Member: a\r\nshoal-member: b\r\n" + end, nil},
		{"short-infohash", stock + "Infohash: 00\r\n" + end, nil},
		{"infohash-not-hex", stock + "Infohash: " + strings.Repeat("g", 40) + "\r\n" + end, nil},
		{"infohash-of-v2", stock + "Infohash: " + strings.Repeat("0", 64) + "\r\n" + end, nil},
		{"one-bad-infohash", stock + one + "Infohash: 00\r\n" + end, nil},
		{"no-colon", stock + one + "what" + end, nil},
		{"too-long", stock + one + "X: " + strings.Repeat("x", maxDatagram) + end, nil},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			got, err := parse([]byte(r.text))
			if (err == nil) != (r.want != nil) {
				t.Fatalf("got %+v, %v", got, err)
			}
			if diff := cmp.Diff(r.want, got, cmp.AllowUnexported(datagram{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(stock + one + end))
	f.Add([]byte(stock + one + one + "cookie: abc\r\nShoal-Member: 192.0.2.7 00\r\n" + end))
	f.Add([]byte(stock + "\r\n:\r\n" + one + "\r\n\r\n"))
	key := secret(keysOf(f, oneKey)[0])
	from := netip.MustParseAddr("192.0.2.7")
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parse(b)
		if err != nil {
			return
		}
		if d.port == 0 || len(d.list) == 0 || len(d.list) > maxDatagram/len(one) {
			t.Fatalf("%q gave %+v", b, d)
		}
		if key.sealed(d, from) {
			t.Fatalf("%q is a member's", b)
		}
		if again, err := parse(d.encode(group4)); err == nil {
			if diff := cmp.Diff(d, again, cmp.AllowUnexported(datagram{})); diff != "" {
				t.Error(diff)
			}
		} else if len(d.encode(group4)) <= maxDatagram {
			t.Errorf("%+v, written again, is %v", d, err)
		}
	})
}

// The longest datagram there can be fits a packet that need not be divided.
func TestLongestDatagram(t *testing.T) {
	from := netip.MustParseAddr("fd00:1111:2222:3333:4444:5555:6666:7777")
	a := newAnnouncer(Config{Addr: netip.MustParseAddrPort("[::]:65535"), Keys: keysOf(t, oneKey, anotherKey)})
	var list [][20]byte
	for i := range byte(maxListed + 1) {
		list = append(list, hash(i))
	}
	all := a.datagrams(from, list)
	if len(all) != 4 { // two for each key
		t.Fatalf("%d datagrams", len(all))
	}
	for _, b := range all {
		if len(b) > 1280-48 {
			t.Errorf("a datagram of %d bytes", len(b))
		}
		if _, err := parse(b); err != nil {
			t.Error(err)
		}
	}
}

// The datagram in docs/protocol.md is what we send, byte for byte.
func TestGoldenDatagram(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	a := newAnnouncer(Config{Addr: netip.MustParseAddrPort("0.0.0.0:7801"), Keys: keysOf(t, oneKey)})
	a.cookie = "EXAMPLE"
	got := a.datagrams(netip.MustParseAddr("192.0.2.7"), [][20]byte{hash(0), hash(1)})[0]
	text := string(bytes.ReplaceAll(bytes.TrimSuffix(got, []byte("\r\n\r\n")), []byte("\r\n"), []byte("\n")))
	for _, want := range []string{text, fmt.Sprintf("%x", a.keys[0])} {
		if !strings.Contains(string(doc), want) {
			t.Errorf("docs/protocol.md does not have\n%s", want)
		}
	}
}
