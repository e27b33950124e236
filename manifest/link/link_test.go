package link_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/link"
)

var repo = manifest.Sum([]byte("root 1"))

func TestRoundTrip(t *testing.T) {
	rows := map[string]*link.Link{
		"least": {Repo: repo, Channel: manifest.Channel{App: "acme", Name: "stable"}},
		"full": {
			Repo: repo, Channel: manifest.Channel{App: "acme", Name: "airgap-lts"}, MinRoot: 5, MinSequence: manifest.Order{Epoch: 1, Sequence: 42},
			At:       []string{"https://updates.example:7800", "http://[fe80::1]:7800/shoal/a%20b"},
			Trackers: []string{"udp://tracker.example:6969/announce"}, Peers: []string{"10.0.0.4:7801", "[::1]:7801", "seed.example:7801"},
		},
	}
	for name, l := range rows {
		t.Run(name, func(t *testing.T) {
			if err := l.Check(); err != nil {
				t.Fatal(err)
			}
			back, err := link.Parse(l.String())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(l, back); d != "" {
				t.Error(d)
			}
			if back.String() != l.String() {
				t.Errorf("written again it is %q", back)
			}
		})
	}
}

func TestReadableForm(t *testing.T) {
	const want = "shoal:join?repo=sha256:%s&app=acme&ch=stable&rv=5&seq=1.42&at=https://updates.example:7800&peer=10.0.0.4:7801"
	l, err := link.Parse(fmt.Sprintf(want, repo))
	if err != nil {
		t.Fatal(err)
	}
	if got := l.String(); got != fmt.Sprintf(want, repo) {
		t.Errorf("written again it is %q", got)
	}
	if l.Repo != repo || l.Channel.String() != "acme/stable" || l.MinRoot != 5 || l.MinSequence.String() != "1.42" {
		t.Errorf("read as %+v", l)
	}
}

func TestRefused(t *testing.T) {
	base := "shoal:join?repo=sha256:" + repo.String() + "&app=acme&ch=stable"
	rows := []struct {
		name, in string
		want     fault.Code
	}{
		{"empty", "", fault.Malformed},
		{"another-scheme", "https" + strings.TrimPrefix(base, "shoal"), fault.Malformed},
		{"scheme-in-upper-case", "SHOAL" + strings.TrimPrefix(base, "shoal"), fault.Malformed},
		{"nothing-but-the-scheme", "shoal:join?", fault.Malformed},
		{"space-in-front", " " + base, fault.Malformed},
		{"line-end-after", base + "\n", fault.Malformed},
		{"fragment", base + "#x", fault.Malformed},
		{"raw-unicode", base + "&x=ä", fault.Malformed},
		{"without-repo", "shoal:join?app=acme&ch=stable", fault.Malformed},
		{"without-app", strings.Replace(base, "&app=acme", "", 1), fault.Malformed},
		{"without-channel", strings.Replace(base, "&ch=stable", "", 1), fault.Malformed},
		{"repo-twice", base + "&repo=sha256:" + repo.String(), fault.Malformed},
		{"another-repo-after", base + "&repo=sha256:" + manifest.Sum(nil).String(), fault.Malformed},
		{"app-twice", base + "&app=acme", fault.Malformed},
		{"channel-twice", base + "&ch=nightly", fault.Malformed},
		{"rv-twice", base + "&rv=5&rv=1", fault.Malformed},
		{"seq-twice", base + "&seq=1.42&seq=1.1", fault.Malformed},
		{"tracker-twice", base + "&tr=http://a/announce&tr=http://b/announce", fault.Malformed},
		{"encoded-key", base + "&%72epo=sha256:" + repo.String(), fault.Malformed},
		{"repo-without-prefix", strings.Replace(base, "sha256:", "", 1), fault.Malformed},
		{"repo-in-upper-case", strings.Replace(base, repo.String(), strings.ToUpper(repo.String()), 1), fault.Malformed},
		{"app-that-leads-up", strings.Replace(base, "acme", "..", 1), fault.Malformed},
		{"app-with-encoded-slash", strings.Replace(base, "acme", "a%2Fb", 1), fault.Malformed},
		{"rv-zero", base + "&rv=0", fault.Malformed},
		{"rv-negative", base + "&rv=-1", fault.Malformed},
		{"rv-with-zero", base + "&rv=05", fault.Malformed},
		{"rv-empty", base + "&rv=", fault.Malformed},
		{"rv-plus", base + "&rv=+5", fault.Malformed},
		{"rv-too-large", base + "&rv=99999999999999999999", fault.Malformed},
		{"seq-without-epoch", base + "&seq=42", fault.Malformed},
		{"at-file", base + "&at=file:///etc/passwd", fault.Malformed},
		{"at-without-host", base + "&at=https://", fault.Malformed},
		{"at-with-user", base + "&at=https://u:p@h", fault.Malformed},
		{"at-with-query", base + "&at=https://h?x=1", fault.Malformed},
		{"at-with-encoded-query", base + "&at=https://h%3Fx", fault.Malformed},
		{"at-with-encoded-fragment", base + "&at=https://h/%23", fault.Malformed},
		{"at-port-zero", base + "&at=https://h:0", fault.Malformed},
		{"at-with-control", base + "&at=https://h/%0A", fault.Malformed},
		{"tracker-of-another-kind", base + "&tr=ws://h", fault.Malformed},
		{"peer-without-port", base + "&peer=10.0.0.4", fault.Malformed},
		{"peer-without-host", base + "&peer=:7801", fault.Malformed},
		{"peer-port-zero", base + "&peer=10.0.0.4:0", fault.Malformed},
		{"peer-named-port", base + "&peer=10.0.0.4:http", fault.Malformed},
		{"bad-encoding", base + "&at=https://h/%zz", fault.Malformed},
		{"part-without-value", base + "&x", fault.Malformed},
		{"empty-part", base + "&", fault.Malformed},
		{"too-long", base + "&x=" + strings.Repeat("y", link.MaxSize), fault.TooLarge},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			l, err := link.Parse(r.in)
			if got := fault.CodeOf(err); got != r.want || l != nil {
				t.Errorf("got %v and %v, want %s", l, err, r.want)
			}
		})
	}
}

func TestIgnored(t *testing.T) {
	l, err := link.Parse("shoal:join?x=1&x=2&repo=sha256:" + repo.String() + "&app=acme&ch=stable&REPO=y&at=https://h/a/")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"https://h/a"}, l.At); d != "" {
		t.Error(d)
	}
}

func TestCheckRefusesWhatParseWould(t *testing.T) {
	good := link.Link{Repo: repo, Channel: manifest.Channel{App: "acme", Name: "stable"}}
	for name, change := range map[string]func(*link.Link){
		"two-trackers": func(l *link.Link) { l.Trackers = []string{"http://a/x", "http://b/x"} },
		"no-channel":   func(l *link.Link) { l.Channel = manifest.Channel{} },
		"too-long":     func(l *link.Link) { l.Peers = make([]string, 200); l.Peers[0] = "a:1" },
	} {
		l := good
		change(&l)
		if l.Check() == nil {
			t.Errorf("%s passes", name)
		}
	}
}

func TestAnnounceURLs(t *testing.T) {
	l := link.Link{At: []string{"https://a:7800", "https://b/x"}}
	if d := cmp.Diff([]string{"https://a:7800/announce", "https://b/x/announce"}, l.AnnounceURLs()); d != "" {
		t.Error(d)
	}
	l.Trackers = []string{"udp://t:1"}
	if d := cmp.Diff([]string{"udp://t:1"}, l.AnnounceURLs()); d != "" {
		t.Error(d)
	}
}

func ExampleParse() {
	l, err := link.Parse("shoal:join?repo=sha256:" + repo.String() + "&app=acme&ch=stable&at=https://updates.example:7800")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(l.Channel, l.AnnounceURLs())
	// Output: acme/stable [https://updates.example:7800/announce]
}

// FuzzParse: whatever is read is written as something that reads the same.
func FuzzParse(f *testing.F) {
	f.Add("shoal:join?repo=sha256:" + repo.String() + "&app=acme&ch=stable&rv=5&seq=1.42&at=https://a:7800/%25&tr=udp://t:1&peer=[::1]:7801")
	f.Add("shoal:join?repo=sha256:" + repo.String() + "&app=a&ch=b&x=%00")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := link.Parse(s)
		if err != nil {
			return
		}
		again, err := link.Parse(l.String())
		if err != nil {
			if fault.CodeOf(err) == fault.TooLarge { // encoding may make a link longer
				return
			}
			t.Fatalf("%q was read, written as %q it is not: %v", s, l, err)
		}
		if d := cmp.Diff(l, again); d != "" {
			t.Fatalf("%q: %s", s, d)
		}
	})
}
