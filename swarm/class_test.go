package swarm

import (
	"net/netip"
	"testing"

	"shoal/swarm/lan"
)

func TestClass(t *testing.T) {
	c, err := newClassifier([]string{"192.0.2.1:7801", "[2001:db8::1]:7801", "127.0.0.1:9000", "publisher.invalid:7801"})
	if err != nil {
		t.Fatal(err)
	}
	c.networks = []lan.Network{
		{Interface: "eth0", Prefix: netip.MustParsePrefix("192.168.7.0/24")},
		{Interface: "eth0", Prefix: netip.MustParsePrefix("fe80::/64")},
	}
	if !c.learn("publisher.invalid:7801", netip.MustParseAddrPort("192.168.7.2:7801")) {
		t.Error("the address of a named origin is no news")
	}
	if c.learn("other.invalid:7801", netip.MustParseAddrPort("192.168.7.3:7801")) {
		t.Error("a host that is no origin became one")
	}
	for _, test := range []struct {
		name    string
		remote  string
		listens uint16 // as it says; only for those that dialled us
		dialled bool
		want    Class
	}{
		{"dialled-origin", "192.0.2.1:7801", 0, true, ClassOrigin},
		{"dialled-origin-ipv6", "[2001:db8::1]:7801", 0, true, ClassOrigin},
		{"dialled-origin-by-name", "192.168.7.2:7801", 0, true, ClassOrigin},
		{"dialled-origin-mapped", "[::ffff:192.0.2.1]:7801", 0, true, ClassOrigin},
		{"dialled-neighbour-of-origin-by-port", "192.0.2.1:7802", 0, true, ClassWAN},
		{"accepted-origin", "192.0.2.1:50000", 7801, false, ClassOrigin},
		{"accepted-origin-that-has-not-said-yet", "192.0.2.1:50000", 0, false, ClassWAN},
		{"accepted-from-the-origins-port-by-chance", "192.0.2.1:7801", 7802, false, ClassWAN},
		{"accepted-agent-on-the-publishers-machine", "127.0.0.1:50000", 9001, false, ClassLAN},
		{"accepted-publisher-on-this-machine", "127.0.0.1:50000", 9000, false, ClassOrigin},
		{"accepted-liar-from-elsewhere", "192.0.2.9:50000", 7801, false, ClassWAN},
		{"loopback", "127.3.2.1:1", 0, true, ClassLAN},
		{"loopback-ipv6", "[::1]:1", 0, true, ClassLAN},
		{"lan", "192.168.7.77:1", 0, true, ClassLAN},
		{"lan-link-local-with-zone", "[fe80::2%eth0]:1", 0, true, ClassLAN},
		{"private-but-behind-a-router", "192.168.8.77:1", 0, true, ClassWAN},
		{"private-but-behind-a-vpn", "10.8.0.1:1", 0, true, ClassWAN},
		{"public", "198.51.100.1:1", 0, true, ClassWAN},
	} {
		a := netip.MustParseAddrPort(test.remote)
		got := c.dialled(a)
		if !test.dialled {
			got = c.accepted(a.Addr(), test.listens)
		}
		if got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
	for _, bad := range []string{"", "host", "host:", "host:0", "host:70000", "host:http"} {
		if _, err := newClassifier([]string{bad}); err == nil {
			t.Errorf("origin %q is accepted", bad)
		}
	}
}
