package announce

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/anacrolix/torrent/bencode"
)

const (
	maxReply     = 64 << 10 // bytes
	maxRedirects = 3
	maxReason    = 200 // bytes of a failure reason that are shown
)

var errRefused = errors.New("the tracker says")

// newTransport is for trackers alone: few, asked seldom, and many more torrents than that.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost, t.IdleConnTimeout = 2, 30*time.Second
	t.DisableCompression = true
	return t
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
		return errors.New("redirected from https to " + req.URL.Scheme)
	}
	return nil
}

// send announces over whatever the URL says.
func (c *Client) send(ctx context.Context, tracker string, s Status, event string) (reply, error) {
	if strings.HasPrefix(tracker, "udp:") {
		return sendUDP(ctx, tracker, s, event)
	}
	return c.sendHTTP(ctx, tracker, s, event)
}

func (c *Client) sendHTTP(ctx context.Context, tracker string, s Status, event string) (reply, error) {
	near := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		a, err := netip.ParseAddrPort(i.Conn.RemoteAddr().String())
		near = err == nil && a.Addr().IsLoopback()
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, tracker, nil)
	if err != nil {
		return reply{}, err
	}
	query := announceQuery(s, event)
	if req.URL.RawQuery != "" {
		query = req.URL.RawQuery + "&" + query
	}
	req.URL.RawQuery = query
	req.Header.Set("User-Agent", c.ua)
	resp, err := c.http.Do(req)
	if err != nil {
		// The URL in it is long and says nothing.
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	switch {
	case err != nil:
		return reply{}, fmt.Errorf("reading the reply: %w", err)
	case len(body) > maxReply:
		return reply{}, fmt.Errorf("the reply is longer than %d bytes", maxReply)
	}
	r, err := parseReply(body)
	if resp.StatusCode != http.StatusOK && !errors.Is(err, errRefused) {
		return reply{}, fmt.Errorf("the tracker answered %s", resp.Status)
	}
	r.peers = usable(r.peers, near)
	return r, err
}

func announceQuery(s Status, event string) string {
	q := url.Values{
		"info_hash":  {string(s.Infohash[:])},
		"peer_id":    {string(s.PeerID[:])},
		"port":       {strconv.Itoa(int(s.Port))},
		"uploaded":   {strconv.FormatInt(s.Uploaded, 10)},
		"downloaded": {strconv.FormatInt(s.Downloaded, 10)},
		"left":       {strconv.FormatInt(s.Left, 10)},
		"compact":    {"1"},
		"numwant":    {strconv.Itoa(wanted(event))},
	}
	if event != eventNone {
		q.Set("event", event)
	}
	return strings.ReplaceAll(q.Encode(), "+", "%20") // not every tracker takes + for a blank
}

func wanted(event string) int {
	if event == eventStopped {
		return 0
	}
	return peersWanted
}

// parseReply reads the bencoded reply of a tracker (BEP 3, 7 and 23).
func parseReply(b []byte) (reply, error) {
	var doc struct {
		Failure  string        `bencode:"failure reason"`
		Interval int64         `bencode:"interval"`
		Min      int64         `bencode:"min interval"`
		Peers    bencode.Bytes `bencode:"peers"`
		Peers6   string        `bencode:"peers6"`
	}
	var trailing bencode.ErrUnusedTrailingBytes
	if err := bencode.Unmarshal(b, &doc); err != nil && !errors.As(err, &trailing) {
		return reply{}, fmt.Errorf("reading the reply: %w", err)
	}
	if doc.Failure != "" {
		return reply{}, fmt.Errorf("%w %q", errRefused, doc.Failure[:min(len(doc.Failure), maxReason)])
	}
	r := reply{interval: seconds(doc.Interval), min: seconds(doc.Min)}
	if len(doc.Peers) > 0 && doc.Peers[0] == 'l' {
		r.peers = listed(doc.Peers)
	} else if len(doc.Peers) > 0 {
		var compact string
		if err := bencode.Unmarshal(doc.Peers, &compact); err != nil {
			return reply{}, fmt.Errorf("reading the peers of a reply: %w", err)
		}
		r.peers = unpack(nil, compact, 4)
	}
	r.peers = unpack(r.peers, doc.Peers6, 16)
	return r, nil
}

func seconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), int64(maxInterval/time.Second))) * time.Second
}

// unpack appends peers in compact form: an address of size bytes and a port each.
func unpack(peers []netip.AddrPort, compact string, size int) []netip.AddrPort {
	for len(compact) >= size+2 && len(peers) < maxReply {
		a, _ := netip.AddrFromSlice([]byte(compact[:size]))
		peers = append(peers, netip.AddrPortFrom(a, binary.BigEndian.Uint16([]byte(compact[size:size+2]))))
		compact = compact[size+2:]
	}
	return peers
}

// listed reads peers in the long form; what is not a peer is passed over.
func listed(b []byte) (peers []netip.AddrPort) {
	var list []struct {
		IP   string `bencode:"ip"`
		Port int64  `bencode:"port"`
	}
	if bencode.Unmarshal(b, &list) != nil {
		return nil
	}
	for _, p := range list {
		if a, err := netip.ParseAddr(p.IP); err == nil && a.Zone() == "" && p.Port > 0 && p.Port < 1<<16 {
			peers = append(peers, netip.AddrPortFrom(a, uint16(p.Port)))
		}
	}
	return peers
}
