package swarm

import "shoal/swarm/lsd"

// Bytes says where the payload of a fetch came from, by class of the peer, and how much
// was given to others meanwhile. Payload is blocks of pieces, without any protocol.
//
// What is received more than once, or turns out to be wrong, counts as often as it came:
// LAN+WAN+Origin+Webseed is what the network carried. Without Wasted, and with what was
// there at the start, it is the length of the file, unless a peer sent wrong data.
type Bytes struct {
	LAN, WAN, Origin, Webseed int64
	// Wasted is the part of the four that was not asked for or already there.
	Wasted int64
	// Given is what this node sent to peers.
	Given int64
}

// Stats is what a node did since it was started.
type Stats struct {
	Torrents []TorrentStats // those that are there now, in no order
	// Received and Given are the payload of all torrents, dropped ones included.
	Received, Given ByClass
	// WireDown and WireUp are all bytes of peer connections, protocol included. TLS adds
	// a little more than a thousandth to them.
	WireDown, WireUp ByClass
	// Members is how many members of the fleet there are connections with now; zero in an
	// open fleet.
	Members int
	// Refused counts those that are none, or did not show it, or are banned.
	Refused Refused
	// Bans are of peers that sent bad pieces within the last hour.
	Bans int
	// LAN is what was announced to neighbours, and heard.
	LAN lsd.Stats
}

// TorrentStats is the share of one torrent, since it was added.
type TorrentStats struct {
	Infohash [20]byte
	Name     string
	Length   int64 // bytes
	Verified int64 // bytes of those that are here, and hashed
	Complete bool
	Peers    int // connected now
	// Received and Given are payload, counted as in Bytes.
	Received, Given ByClass
	Wasted          int64
}

// Stats returns a snapshot.
func (n *Node) Stats() Stats {
	n.mu.Lock()
	st := n.dropped
	shares := make([]*share, 0, len(n.torrents))
	for _, s := range n.torrents {
		shares = append(shares, s)
	}
	n.mu.Unlock()
	for _, s := range shares {
		if !s.added() {
			continue // not a torrent yet
		}
		t := s.stats()
		st.Torrents = append(st.Torrents, t)
		st.Received.add(t.Received)
		st.Given.add(t.Given)
	}
	for c := range numClasses {
		st.WireDown[c] = n.tr.down[c].Load()
		st.WireUp[c] = n.tr.up[c].Load()
	}
	st.Members, st.Refused = n.tr.countMembers(), n.tr.refused.stats()
	st.Bans = n.tr.bans.Count()
	if n.lsd != nil {
		st.LAN = n.lsd.Stats()
	}
	return st
}

func (s *share) stats() TorrentStats {
	t := TorrentStats{Infohash: s.info.ref.Infohash, Name: s.info.name, Length: s.info.ref.Length}
	if s.store != nil {
		t.Verified, t.Complete = s.store.Verified(), s.store.Complete()
	}
	sum, peers := s.count()
	t.Peers, t.Received, t.Given = peers, sum.received, sum.given
	t.Wasted = sum.received.Sum() - sum.useful.Sum()
	return t
}

func (t *traffic) bytes() Bytes {
	return Bytes{
		LAN: t.received[ClassLAN], WAN: t.received[ClassWAN], Origin: t.received[ClassOrigin],
		Webseed: t.received[ClassWebseed],
		Wasted:  t.received.Sum() - t.useful.Sum(),
		Given:   t.given.Sum(),
	}
}
