package tracker

import (
	"net/url"
	"strings"
	"testing"
)

// Queries come from anybody.
func FuzzParseQuery(f *testing.F) {
	f.Add(query(registered, 7801))
	f.Add(query(registered, 7801, "numwant", "-1", "event", "stopped", "key", "abc"))
	f.Add("info_hash=%00%ff&info_hash=aaaaaaaaaaaaaaaaaaaa&port=0&peer_id=%")
	f.Add("&&==&=&a&%41=%42+c")
	f.Fuzz(func(t *testing.T, raw string) {
		a, err := parseAnnounce(raw)
		if err == nil && (a.want < 0 || a.want > maxWant || a.stopped && a.want != 0) {
			t.Errorf("%q wants %d peers", raw, a.want)
		}
		if err != nil && a != (announce{}) {
			t.Errorf("%q is refused and yet says %+v", raw, a)
		}
		if hashes, err := parseScrape(raw); err == nil && len(hashes) > maxScraped {
			t.Errorf("%q scrapes %d torrents", raw, len(hashes))
		}
		// Where the standard library can read a query, we read the same.
		values, err := url.ParseQuery(raw)
		if err != nil || len(raw) > maxQuery {
			return
		}
		got := map[string][]string{}
		if err := eachParam(raw, func(name, value string) error {
			got[name] = append(got[name], value)
			return nil
		}); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		for name, want := range values {
			if strings.Join(got[name], "\x00") != strings.Join(want, "\x00") && name != "" {
				t.Errorf("%q: %q is %q, want %q", raw, name, got[name], want)
			}
		}
	})
}
