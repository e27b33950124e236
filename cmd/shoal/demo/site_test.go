package demo

import (
	"io"
	"testing"

	"shoal/manifest"
	"shoal/manifest/link"
)

func TestALinkWithoutPlacesNamesTheFleetAlone(t *testing.T) {
	all := link.Link{
		Repo: manifest.Digest{1}, Channel: manifest.Channel{App: app, Name: channel}, MinRoot: 1,
		At: []string{"https://127.0.0.1:7800"}, Trackers: []string{"https://127.0.0.1:7800/announce"}, Peers: []string{"127.0.0.1:7801"},
	}
	text, err := withoutPlaces(all.String())
	if err != nil {
		t.Fatal(err)
	}
	l, err := link.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if l.Repo != all.Repo || l.Channel != all.Channel || l.MinRoot != all.MinRoot {
		t.Errorf("%s is for another fleet than %s", text, all.String())
	}
	if len(l.At)+len(l.Trackers)+len(l.Peers) != 0 {
		t.Errorf("%s tells where to ask", text)
	}
}

// What would show that a machine of the site has had a network after all is a problem,
// with which the demo ends in exit status 1.
func TestASiteThatIsNotAlone(t *testing.T) {
	const size = 100
	neighbour := []string{"127.0.0.1:7801"}
	for _, tc := range []struct {
		name  string
		peers []string
		got   Machine
		fine  bool
	}{
		{"a bundle", nil, Machine{}, true},
		{"a bundle, and the publisher", nil, Machine{OriginBytes: 1}, false},
		{"a bundle, and peers", nil, Machine{PeerBytes: 1}, false},
		{"a neighbour", neighbour, Machine{PeerBytes: size}, true},
		{"a neighbour, and the publisher", neighbour, Machine{PeerBytes: size, OriginBytes: 1}, false},
		{"nobody knows where from", neighbour, Machine{PeerBytes: size - 1}, false},
	} {
		f := &fleet{cfg: Config{Talk: io.Discard}, size: size}
		f.checkSite(&machine{name: "m6", site: true, peers: tc.peers}, tc.got)
		if fine := len(f.result.Problems) == 0; fine != tc.fine {
			t.Errorf("%s: problems %q", tc.name, f.result.Problems)
		}
	}
}
