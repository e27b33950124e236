package swarm

import (
	"net"
	"testing"
)

func TestCheckTracker(t *testing.T) {
	for _, test := range []struct {
		raw, want string // "" is refused
	}{
		{"http://tracker.example/announce", "http://tracker.example/announce"},
		{"https://tracker.example:7800/announce?key=a%20b", "https://tracker.example:7800/announce?key=a%20b"},
		{"udp://tracker.example:1337", "udp://tracker.example:1337"},
		{"http://[2001:db8::1]:7800/announce", "http://[2001:db8::1]:7800/announce"},
		{"HTTP://tracker.example/a b", "http://tracker.example/a%20b"},
		{"http://tracker.example/announce#top", "http://tracker.example/announce"},
		{"http://user:secret@tracker.example/announce", ""},
		{"ws://tracker.example/announce", ""},
		{"file:///etc/passwd", ""},
		{"http:///announce", ""},
		{"http:tracker.example", ""},
		{"tracker.example:80", ""},
		{"http://tracker.example/%zz", ""},
		{"", ""},
		{"*http://tracker.example", ""},
	} {
		got, err := checkTracker(test.raw)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%q: got %q, %v, want %q", test.raw, got, err, test.want)
		}
	}
}

func TestUDPTrackerWithoutTheFamily(t *testing.T) {
	tr := newTrackerNet()
	pc, err := tr.listenPacket("udp6", "not an address")
	if err != nil {
		t.Fatalf("the engine panics on %v", err)
	}
	if _, err := pc.WriteTo(nil, &net.UDPAddr{}); err == nil {
		t.Error("a socket that could not be opened can be written to")
	}
	tr.close(0)
	if pc, err = tr.listenPacket("udp4", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if _, err := pc.WriteTo(nil, &net.UDPAddr{}); err == nil {
		t.Error("a socket was opened after the end")
	}
}
