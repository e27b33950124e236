package lan

import (
	"net"
	"testing"
)

func TestPrivate(t *testing.T) {
	for _, test := range []struct {
		cidr, want string
	}{
		{"192.168.7.9/24", "192.168.7.0/24"},
		{"10.1.2.3/8", "10.0.0.0/8"},
		{"169.254.3.4/16", "169.254.0.0/16"},
		{"fd00:1::5/64", "fd00:1::/64"},
		{"fe80::1/64", "fe80::/64"},
		{"203.0.113.5/24", ""},
		{"100.64.1.1/10", ""}, // carrier-grade NAT: the neighbours are strangers
		{"2001:db8::1/64", ""},
	} {
		ip, n, err := net.ParseCIDR(test.cidr)
		if err != nil {
			t.Fatal(err)
		}
		n.IP = ip
		p, ok := private(n)
		if ok != (test.want != "") || ok && p.String() != test.want {
			t.Errorf("private(%s) = %v, %v, want %q", test.cidr, p, ok, test.want)
		}
	}
}

func TestNetworks(t *testing.T) {
	networks, err := Networks()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range networks {
		if n.Interface == "" || !n.Prefix.IsValid() || n.Prefix.Addr().IsLoopback() {
			t.Errorf("network %+v is not one", n)
		}
	}
}
