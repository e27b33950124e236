package publisher

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"shoal/manifest"
	"shoal/publisher/fleet"
	"shoal/publisher/origin"
	"shoal/publisher/tracker"
	"shoal/swarm"
	members "shoal/swarm/fleet"
)

// server answers the origin's HTTP requests. It has no mux: a mux redirects what it
// finds unclean, and everything that is not exactly one of our names is not found.
type server struct {
	p       *Publisher
	node    *swarm.Node
	tracker *tracker.Tracker
	files   *origin.Tree
	seeds   *seeds
	reports *fleet.Store
	ui      *ui
	started time.Time
	http    netip.AddrPort
	ready   atomic.Bool

	keyed    bool // the fleet has a key: what is here is for its members
	openData bool // but the tree is for everyone
}

const statusPath = "/api/v1/status"

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	look := s.ui.handler(r.URL.Path)
	if r.ContentLength != 0 {
		// Without a deadline a body's sender could hold us, while we read it or while the
		// server reads it away.
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		if r.URL.Path != fleet.ReportsPath && look == nil {
			w.Header().Set("Connection", "close")
			http.Error(w, "nothing here takes a body", http.StatusRequestEntityTooLarge)
			return
		}
	}
	if look != nil { // whoever it lets in, a certificate of the fleet or not
		look.ServeHTTP(w, r)
		return
	}
	if !s.admits(r) {
		if r.ContentLength != 0 {
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(http.StatusForbidden) // and not a byte besides
		return
	}
	switch r.URL.Path {
	case "/announce":
		s.tracker.ServeAnnounce(w, r)
	case "/scrape":
		s.tracker.ServeScrape(w, r)
	case "/healthz":
		s.serveHealth(w, r)
	case statusPath:
		s.serveStatus(w, r)
	case fleet.ReportsPath:
		s.reports.ServeHTTP(w, r)
	default:
		s.files.ServeHTTP(w, r)
	}
}

// admits reports whether the client may have what it asks for. In a fleet with a key that
// takes a certificate of the fleet, whose chain the TLS handshake has verified.
func (s *server) admits(r *http.Request) bool {
	if !s.keyed {
		return true
	}
	if _, ok := members.Peer(r.TLS); ok {
		return true
	}
	switch r.URL.Path {
	case "/healthz":
		return true // says nothing but that somebody serves
	case "/announce", "/scrape", statusPath, fleet.ReportsPath:
		return false // who is there, and what
	}
	return s.openData
}

// serveHealth answers 200 once everything published is served, and 503 before.
func (s *server) serveHealth(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if !s.ready.Load() {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	w.Write([]byte("ok\n"))
}

// Status is what GET /api/v1/status answers, with the schema "shoal.serve/v1". Bytes
// count payload since the start; members are only ever added.
type Status struct {
	Schema   string           `json:"schema"`
	FleetID  manifest.FleetID `json:"fleet_id"`
	Ready    bool             `json:"ready"`   // everything published is served
	Started  time.Time        `json:"started"` // of this process
	Swarm    string           `json:"swarm"`   // host:port the seed listens on
	Given    Given            `json:"given"`
	Tracker  TrackerStatus    `json:"tracker"`
	Members  int              `json:"members"` // of a fleet with a key, connected to the seed now
	Refused  Refused          `json:"refused"` // connections to the seed of such a fleet
	Torrents []TorrentStatus  `json:"torrents"`
}

// Given is payload sent to machines, in bytes.
type Given struct {
	Total int64 `json:"total"`
	Swarm int64 `json:"swarm"` // over BitTorrent
	HTTP  int64 `json:"http"`  // by the tree: mirrors, webseeds, people
}

// Refused counts connections that did not show that they are of the fleet, or are banned.
type Refused struct {
	Plain      int64 `json:"plain"`      // spoke something else than TLS
	Strangers  int64 `json:"strangers"`  // had no certificate of the fleet
	Unfinished int64 `json:"unfinished"` // said too little, too late
	Banned     int64 `json:"banned"`     // have sent wrong data lately
}

// TrackerStatus is the tracker's numbers.
type TrackerStatus struct {
	Peers     int    `json:"peers"`
	Announces uint64 `json:"announces"`
	Refused   uint64 `json:"refused"`
}

// TorrentStatus is one payload on offer.
type TorrentStatus struct {
	Infohash manifest.Infohash `json:"infohash"`
	SHA256   manifest.Digest   `json:"sha256"`
	Channel  manifest.Channel  `json:"channel"`
	Version  string            `json:"version"`
	Platform string            `json:"platform"`
	Length   int64             `json:"length"`
	Seeding  bool              `json:"seeding"` // false while it is being hashed, or its file is not good
	Current  bool              `json:"current"` // false when a newer release has taken its place
	Given    int64             `json:"given"`
	Peers    int               `json:"peers"`
}

func (s *server) status() Status {
	ts := s.tracker.Stats()
	st := Status{
		Schema: "shoal.serve/v1", Ready: s.ready.Load(), Started: s.started.UTC().Truncate(time.Second),
		Swarm: s.node.Addr().String(), Torrents: []TorrentStatus{},
		Tracker: TrackerStatus{Peers: ts.Peers, Announces: ts.Announces, Refused: ts.Refused},
	}
	if id, err := s.p.repo.FleetID(); err == nil {
		st.FleetID = id
	}
	node := s.node.Stats()
	st.Given.Swarm = node.Given.Sum()
	st.Members, st.Refused = node.Members, Refused(node.Refused)
	stats := map[[20]byte]swarm.TorrentStats{}
	for _, t := range node.Torrents {
		stats[t.Infohash] = t
	}
	s.seeds.mu.Lock()
	defer s.seeds.mu.Unlock()
	for hash, h := range s.seeds.have {
		t := stats[hash]
		st.Torrents = append(st.Torrents, TorrentStatus{
			Infohash: hash, SHA256: h.payload.SHA256, Channel: h.Channel, Version: h.Version, Platform: h.Platform.String(),
			Length: h.payload.Length, Seeding: h.serving, Current: h.oldSince.IsZero(), Given: t.Given.Sum(), Peers: t.Peers,
		})
	}
	slices.SortFunc(st.Torrents, func(a, b TorrentStatus) int {
		return strings.Compare(a.Channel.String()+" "+a.Platform+" "+a.Infohash.String(), b.Channel.String()+" "+b.Platform+" "+b.Infohash.String())
	})
	st.Given.HTTP = s.files.Given()
	st.Given.Total = st.Given.Swarm + st.Given.HTTP
	return st
}

func (s *server) serveStatus(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	b, err := json.Marshal(s.status())
	if err != nil {
		http.Error(w, "the status cannot be told", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.Write(append(b, '\n'))
}
