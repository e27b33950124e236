package announce

import (
	"context"
	"log/slog"
	"net/netip"
	"net/url"

	"github.com/anacrolix/torrent/tracker"
)

var udpEvents = map[string]tracker.AnnounceEvent{
	eventNone: tracker.None, eventStarted: tracker.Started,
	eventCompleted: tracker.Completed, eventStopped: tracker.Stopped,
}

// sendUDP announces as in BEP 15, on a socket of its own.
func sendUDP(ctx context.Context, rawURL string, s Status, event string) (reply, error) {
	cl, err := tracker.NewClient(rawURL, tracker.NewClientOpts{Slogger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return reply{}, err
	}
	defer cl.Close()
	resp, err := cl.Announce(ctx, tracker.AnnounceRequest{
		InfoHash: s.Infohash, PeerId: s.PeerID, Port: s.Port, Event: udpEvents[event],
		Uploaded: s.Uploaded, Downloaded: s.Downloaded, Left: s.Left, NumWant: int32(wanted(event)),
	}, tracker.AnnounceOpt{})
	if err != nil {
		return reply{}, err
	}
	r := reply{interval: seconds(int64(resp.Interval))}
	for _, p := range resp.Peers {
		if a, ok := p.ToNetipAddrPort(); ok && p.Port > 0 && p.Port < 1<<16 {
			r.peers = append(r.peers, a)
		}
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return reply{}, err
	}
	host, err := netip.ParseAddr(u.Hostname())
	r.peers = usable(r.peers, u.Hostname() == "localhost" || err == nil && host.IsLoopback())
	return r, nil
}
