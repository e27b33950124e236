// Package link reads and writes join links: what a newcomer must know of a fleet, as
// one line for a person, a QR code or a configuration file.
//
//	shoal:join?repo=sha256:<hex>&app=acme&ch=stable&rv=5&seq=1.42&at=https://updates.example:7800&peer=10.0.0.4:7801
//
// A link is not secret, and whoever gives it to a machine decides which fleet the
// machine trusts. So there is one way to read it: a part that could count once counts
// once, or the link is refused.
package link

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"shoal/internal/fault"
	"shoal/manifest"
)

// MaxSize is the largest link, in bytes.
const MaxSize = 2 << 10

const scheme = "shoal:join?"

// Link is what a newcomer must know of a fleet, and where it may ask. Only Repo decides
// what is trusted; the addresses are hints.
type Link struct {
	Repo        manifest.Digest  // fleet id
	Channel     manifest.Channel // what to follow
	MinRoot     int64            // least root version; 0 for none
	MinSequence manifest.Order   // least order; zero for none
	At          []string         // base URLs of servers and mirrors, without a slash at the end
	Trackers    []string         // at most one
	Peers       []string         // host:port
}

// Parse reads a link. Parts it does not know are ignored, for later versions. Its errors
// have the code malformed, or too_large.
func Parse(s string) (*Link, error) {
	if len(s) > MaxSize {
		return nil, fault.New(fault.TooLarge, "the join link is longer than %d bytes", MaxSize)
	}
	rest, ok := strings.CutPrefix(s, scheme)
	if !ok {
		return nil, bad("it does not begin with %s", scheme)
	}
	for i := range len(rest) {
		if c := rest[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return nil, bad("byte %d must be percent-encoded", len(scheme)+i)
		}
	}
	l := new(Link)
	seen := make(map[string]bool)
	for part := range strings.SplitSeq(rest, "&") {
		key, coded, ok := strings.Cut(part, "=")
		if !ok || key == "" || strings.Contains(key, "%") {
			return nil, bad("%q is not key=value", part)
		}
		value, err := url.PathUnescape(coded)
		if err != nil {
			return nil, bad("the value of %q is not percent-encoded", key)
		}
		switch key {
		case "repo", "app", "ch", "rv", "seq", "tr":
			if seen[key] {
				return nil, bad("%q is there twice", key)
			}
			seen[key] = true
		}
		if err := l.set(key, value); err != nil {
			return nil, err
		}
	}
	for _, key := range []string{"repo", "app", "ch"} {
		if !seen[key] {
			return nil, bad("%q is missing", key)
		}
	}
	return l, nil
}

func (l *Link) set(key, value string) (err error) {
	switch key {
	case "repo":
		if l.Repo, err = manifest.ParsePrefixed(value); err != nil {
			return bad("repo is %q, sha256: and 64 lower-case hex digits are wanted", value)
		}
	case "app", "ch":
		if !manifest.ValidName(value) {
			return bad("%s is %q, which is no name", key, value)
		}
		if key == "app" {
			l.Channel.App = value
		} else {
			l.Channel.Name = value
		}
	case "rv":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 1 || strconv.FormatInt(n, 10) != value {
			return bad("rv is %q, a root version is wanted", value)
		}
		l.MinRoot = n
	case "seq":
		if l.MinSequence, err = manifest.ParseOrder(value); err != nil {
			return bad("seq is %q, EPOCH.SEQUENCE is wanted", value)
		}
	case "at":
		u, ok := base(value, "http", "https")
		if !ok {
			return bad("at is %q, the URL of a server is wanted", value)
		}
		l.At = append(l.At, u)
	case "tr":
		if _, ok := base(value, "http", "https", "udp"); !ok {
			return bad("tr is %q, the URL of a tracker is wanted", value)
		}
		l.Trackers = append(l.Trackers, value)
	case "peer":
		if !hostPort(value) {
			return bad("peer is %q, host:port is wanted", value)
		}
		l.Peers = append(l.Peers, value)
	}
	return nil
}

// base takes a URL of a place: no user, query or fragment to smuggle anything in.
func base(s string, schemes ...string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil || u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#") || u.Hostname() == "" {
		return "", false
	}
	if port := u.Port(); port != "" && !validPort(port) {
		return "", false
	}
	for _, want := range schemes {
		if u.Scheme == want {
			return strings.TrimRight(s, "/"), true
		}
	}
	return "", false
}

func hostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	return err == nil && host != "" && !strings.ContainsAny(host, "/?#@ ") && validPort(port)
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// String returns the link. Check says whether Parse would read it.
func (l *Link) String() string {
	var b strings.Builder
	b.WriteString(scheme)
	b.WriteString("repo=" + l.Repo.Prefixed())
	add := func(key, value string) { b.WriteString("&" + key + "=" + encode(value)) }
	add("app", l.Channel.App)
	add("ch", l.Channel.Name)
	if l.MinRoot > 0 {
		add("rv", strconv.FormatInt(l.MinRoot, 10))
	}
	if l.MinSequence != (manifest.Order{}) {
		add("seq", l.MinSequence.String())
	}
	for _, u := range l.At {
		add("at", u)
	}
	for _, u := range l.Trackers {
		add("tr", u)
	}
	for _, p := range l.Peers {
		add("peer", p)
	}
	return b.String()
}

// Check reports why the link cannot be given to anybody.
func (l *Link) Check() error {
	_, err := Parse(l.String())
	return err
}

// AnnounceURLs returns the trackers to announce to: the one named, or that of every
// server.
func (l *Link) AnnounceURLs() []string {
	if len(l.Trackers) > 0 {
		return append([]string(nil), l.Trackers...)
	}
	var urls []string
	for _, u := range l.At {
		urls = append(urls, u+"/announce")
	}
	return urls
}

// encode leaves what makes a link readable, and encodes every other byte.
func encode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~:/[]@", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		const hex = "0123456789ABCDEF"
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}

func bad(format string, args ...any) error {
	return fault.New(fault.Malformed, "reading the join link: "+format, args...).
		Line("Nothing was changed.").
		Do("ask the publisher for the link again: shoal link create")
}
