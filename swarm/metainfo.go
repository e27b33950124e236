package swarm

import (
	"fmt"
	"net/url"
	"strings"
)

// Metainfo returns a complete .torrent file (BEP 3) for people and stock clients, with
// the trackers as one tier each (BEP 12) and the web seeds as `url-list` (BEP 19). This
// package never reads one.
func (i *Info) Metainfo(trackers, webseeds []string) []byte {
	b := append([]byte(nil), 'd')
	if len(trackers) > 0 {
		b = appendString(appendString(b, "announce"), trackers[0])
		b = append(appendString(b, "announce-list"), 'l')
		for _, t := range trackers {
			b = append(appendString(append(b, 'l'), t), 'e')
		}
		b = append(b, 'e')
	}
	b = appendString(appendString(b, "created by"), clientName)
	b = append(appendString(b, "info"), i.raw...)
	if len(webseeds) > 0 {
		b = append(appendString(b, "url-list"), 'l')
		for _, u := range webseeds {
			b = appendString(b, u)
		}
		b = append(b, 'e')
	}
	return append(b, 'e')
}

// Magnet returns a magnet link (BEP 9) for people and stock clients. This package never
// follows one.
func (i *Info) Magnet(trackers, webseeds []string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "magnet:?xt=urn:btih:%x&dn=%s&xl=%d", i.ref.Infohash, queryEscape(i.name), i.ref.Length)
	for _, t := range trackers {
		s.WriteString("&tr=" + queryEscape(t))
	}
	for _, u := range webseeds {
		s.WriteString("&ws=" + queryEscape(u))
	}
	return s.String()
}

// queryEscape writes a space as %20: "+" means that only in HTML forms.
func queryEscape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
