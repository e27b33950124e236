package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"shoal/agent/source"
	"shoal/agent/state"
	"shoal/internal/control"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/swarm"
	"shoal/swarm/fleet"
	"shoal/swarm/lan"
)

const (
	networkPatience = 10 * time.Second // for each that is asked; they are asked at once
	maxTrackerReply = 64 << 10         // bytes
)

// NetworkExamined is what an examination of the network found.
type NetworkExamined struct {
	Examined
	// Reached says that a source, a peer or a neighbour was.
	Reached bool `json:"reached"`
}

// ExamineNetwork looks at everything this machine could get releases from: sources,
// trackers, known peers, its LANs, and at who reaches it. It asks the running agent to
// look, where there is one, and changes nothing.
func ExamineNetwork(ctx context.Context, cfg Config) (*NetworkExamined, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return nil, err
	}
	client, err := control.Dial(ctx, cfg.StateDir, "agent")
	if err == nil {
		var x NetworkExamined
		return &x, client.Do(ctx, "examine-network", struct{}{}, nil, &x)
	}
	if errors.Is(err, fault.Permission) {
		return nil, err // one is running, and is not this user's to ask
	}
	m, err := cfg.member("")
	if err != nil {
		return nil, err
	}
	sources, err := openSources(cfg, m)
	if err != nil {
		return nil, err
	}
	return cfg.network(ctx, m, sources, nil), nil
}

// Unban has the running agent let those in again who are kept out for what they sent, and
// returns how many that were.
func Unban(ctx context.Context, cfg Config) (int, error) {
	client, err := control.Dial(ctx, cfg.StateDir, "agent")
	if errors.Is(err, control.ErrNotRunning) {
		return 0, fault.New(fault.NotFound, "no agent is running here").Line("Who is kept out is forgotten when an agent stops.").Do("shoal agent run")
	}
	if err != nil {
		return 0, err
	}
	var n int
	return n, client.Do(ctx, "unban", struct{}{}, nil, &n)
}

func (a *Agent) unban() int {
	a.nodeMu.Lock()
	defer a.nodeMu.Unlock()
	if a.node == nil {
		return 0
	}
	n := a.node.Stats().Bans
	a.node.LiftBans()
	return n
}

func (a *Agent) examineNetwork(ctx context.Context) *NetworkExamined {
	a.nodeMu.Lock()
	node := a.node
	a.nodeMu.Unlock()
	x := a.cfg.network(ctx, a.member, a.sources, node)
	x.Inside = true
	return x
}

// network looks at everything at once. node is the running agent's, or nil.
func (c Config) network(ctx context.Context, m *fleet.Member, sources []source.Source, node *swarm.Node) *NetworkExamined {
	ctx, cancel := context.WithTimeoutCause(ctx, networkPatience, fmt.Errorf("no answer within %s", networkPatience))
	defer cancel()
	pin, _ := state.ReadPin(c.JoinFile) // without one every fleet is as good
	x := &NetworkExamined{}
	var looks []func() Finding
	for _, s := range sources {
		looks = append(looks, func() Finding {
			return finding("source", "", func() (string, error) { return askSource(ctx, s, pin) })
		})
	}
	for _, url := range c.announceURLs() {
		looks = append(looks, func() Finding {
			return finding("tracker", "", func() (string, error) { return askTracker(ctx, m, url) })
		})
	}
	for _, peer := range c.Peers {
		looks = append(looks, func() Finding {
			return finding("peer", "", func() (string, error) { return dialPeer(ctx, peer) })
		})
	}
	found := make([]Finding, len(looks))
	var wg sync.WaitGroup
	for i, look := range looks {
		wg.Go(func() { found[i] = look() })
	}
	wg.Wait()
	for _, f := range found {
		x.Reached = x.Reached || f.Code == fault.OK && f.Check != "tracker"
	}
	x.Findings = found
	if len(sources) == 0 {
		x.Findings = append(x.Findings, finding("source", "", func() (string, error) {
			return "", fault.New(fault.Unreachable, "no source is configured").Do("set sources.publisher in the configuration, or join with a link that names one")
		}))
	}
	x.Findings = append(x.Findings, c.lanFindings(node)...)
	if node != nil {
		st := node.Stats()
		x.Reached = x.Reached || st.LAN.Found > 0
		x.Findings = append(x.Findings, x.nodeFindings(st, node)...)
	}
	return x
}

// askSource asks for the first root, which every tree of a fleet has.
func askSource(ctx context.Context, s source.Source, pin *state.Pin) (string, error) {
	began := time.Now()
	b, err := s.Document(ctx, tree.Root(1), manifest.MaxRoot)
	if err != nil {
		return "", err
	}
	env, err := manifest.ParseEnvelope(b, manifest.TypeRoot)
	if err != nil {
		e := fault.New(fault.CodeOf(err), "%s answers, and not with a document: %w", s.Name(), err)
		if strings.HasPrefix(strings.TrimSpace(string(b[:min(len(b), 64)])), "<") {
			e.Line("It is a page: a login of the network, or a proxy's, may stand between.")
		}
		return "", e.Do("open %s in a browser on this machine", s.Name())
	}
	if pin != nil && env.PayloadHash() != manifest.Digest(pin.Repo) {
		return "", fault.New(fault.PinMismatch, "%s is of another fleet", s.Name()).
			Line("Pinned here: %s. There: %s.", pin.Repo, env.PayloadHash().Prefixed()).Do("check the address of the source")
	}
	return fmt.Sprintf("%s answers in %d ms, and is of this fleet", s.Name(), time.Since(began).Milliseconds()), nil
}

// askTracker sees whether a tracker is there; what it is asked makes no sense to it.
func askTracker(ctx context.Context, m *fleet.Member, url string) (string, error) {
	if strings.HasPrefix(url, "udp:") {
		return url + " is not looked at: it answers announcements only", nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fault.New(fault.Config, "tracker %q: %w", url, err)
	}
	bad := func(format string, args ...any) error {
		return fault.New(fault.Unreachable, format, args...).
			Line("Peers are then found on the LAN, among neighbours, and by peers: in the configuration alone.").
			Do("check the address, and that this machine can reach it")
	}
	res, err := (&http.Client{Transport: fleet.Transport(m)}).Do(req)
	if err != nil {
		return "", bad("tracker %s does not answer: %w", url, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxTrackerReply))
	if err != nil {
		return "", bad("tracker %s breaks off: %w", url, err)
	}
	if len(b) == 0 || b[0] != 'd' { // a bencoded dictionary (BEP 3)
		return "", bad("%s is no tracker: it answers with HTTP %d", url, res.StatusCode)
	}
	return url + " answers", nil
}

func dialPeer(ctx context.Context, addr string) (string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", fault.New(fault.Unreachable, "peer %s cannot be reached: %w", addr, err).
			Do("check that it runs, and that the firewalls between let TCP through to that port")
	}
	conn.Close()
	return addr + " accepts connections", nil
}

// lanFindings says which networks count as LAN, and what is heard there.
func (c Config) lanFindings(node *swarm.Node) []Finding {
	var all []Finding
	networks, err := lan.Networks()
	if err != nil {
		return append(all, finding("lan", "", func() (string, error) { return "", coded(err, "looking at the interfaces") }))
	}
	for _, n := range networks {
		all = append(all, Finding{Check: "lan", Code: fault.OK, Text: fmt.Sprintf("%s %s counts as LAN", n.Interface, n.Prefix)})
	}
	if len(networks) == 0 {
		all = append(all, Finding{Check: "lan", Code: fault.OK, Text: "no interface has a network that counts as LAN; tunnels, bridges and containers' do not"})
	}
	if !c.Sources.LAN.Enabled {
		return append(all, Finding{Check: "multicast", Code: fault.OK, Text: "neighbours are not looked for (sources.lan.enabled: false)"})
	}
	if node == nil {
		return append(all, Finding{Check: "multicast", Code: fault.OK, Text: "nobody listens for neighbours while no agent runs"})
	}
	return append(all, finding("multicast", "", func() (string, error) {
		st := node.Stats().LAN
		if len(st.Interfaces) == 0 {
			return "", fault.New(fault.Unreachable, "neighbours cannot be looked for: no interface that is up can do multicast, or sources.lan.interfaces leaves it out").
				Do("ip link: is an interface up, with MULTICAST? see sources.lan.interfaces in the configuration")
		}
		text := fmt.Sprintf("on %s: %d announcements sent, %d heard", strings.Join(st.Interfaces, ", "), st.Sent, st.Heard)
		if st.Heard == 0 {
			text += "; if there are neighbours, a switch or a firewall may drop UDP 6771"
		}
		return text, nil
	}))
}

// nodeFindings says who reaches the running agent.
func (x *NetworkExamined) nodeFindings(st swarm.Stats, node *swarm.Node) []Finding {
	peers := 0
	for _, t := range st.Torrents {
		peers += t.Peers
	}
	x.Reached = x.Reached || peers > 0
	text := fmt.Sprintf("%d connections with peers now", peers)
	if r := st.Refused; r.Plain+r.Strangers > 0 {
		text += fmt.Sprintf("; %d came without the fleet's key, and were told nothing", r.Plain+r.Strangers)
	}
	all := []Finding{
		{Check: "peers", Code: fault.OK, Text: text},
		{Check: "listening", Code: fault.OK, Text: fmt.Sprintf("on %s, TCP; whether firewalls let others in, only another machine can tell", node.Addr()),
			Lines: []string{fmt.Sprintf("there: peers: [ THIS:%d ] in its agent.yaml, and shoal doctor network", node.Addr().Port())}},
	}
	if st.Bans > 0 {
		all = append(all, Finding{Check: "bans", Code: fault.OK, Text: fmt.Sprintf("%d peers are kept out for bad pieces; each ban ends within an hour", st.Bans),
			Fix: []string{"to let them in at once: shoal agent unban"}})
	}
	return all
}
