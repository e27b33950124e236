package manifest

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"shoal/internal/fault"
	"shoal/keys"
)

const (
	maxHost   = 253 // bytes, as a DNS name
	maxLabels = 32
	maxApps   = maxChannels
	maxEvents = 64
)

// Report is one agent's account of itself, signed by its own key. It proves which key
// said so, and not that the machine is honest. The names in JSON are for whoever shows
// or stores what was verified; what is signed is [DraftReport]'s.
type Report struct {
	Repo         Digest       `json:"repo"`
	Agent        keys.ID      `json:"agent"`   // the agent id: fingerprint of the key that signed
	Counter      int64        `json:"counter"` // rises with every report of this agent
	Time         time.Time    `json:"time"`
	Host         string       `json:"host"`
	Platform     Platform     `json:"platform"`
	AgentVersion string       `json:"agent_version"`
	RootVersion  int64        `json:"root_version"`
	Run          string       `json:"run,omitempty"` // drawn at random when the agent started: two at a time are two machines with one key
	Labels       []Label      `json:"labels,omitempty"`
	Apps         []AppReport  `json:"apps"`
	Events       []EventCount `json:"events,omitempty"`
}

// NextCounter returns the counter of the report after the one with the counter last. It
// is at least the Unix time, so that an agent that has lost its state is not taken for a
// copy of itself for ever.
func NextCounter(last int64, now time.Time) int64 { return max(last+1, now.Unix(), 1) }

// Label is a machine's own label. Its rings are its labels named "ring".
type Label struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// AppReport is how one app stands on a machine.
type AppReport struct {
	App       string    `json:"app"`
	Channel   string    `json:"channel"`
	Epoch     int64     `json:"epoch"` // of what is trusted; 0 for nothing yet, as is Sequence
	Sequence  int64     `json:"sequence"`
	Version   string    `json:"version,omitempty"` // what runs; empty when not known
	SHA256    Digest    `json:"sha256,omitzero"`   // what runs; zero when nothing does
	Offered   Digest    `json:"offered,omitzero"`  // what the trusted manifest has for this machine, and State is about
	State     AppState  `json:"state"`
	FailedAt  time.Time `json:"failed_at,omitzero"` // when an update last failed, by the machine's clock: another moment is another failure
	Why       *Why      `json:"why,omitempty"`      // there unless State is StateHealthy
	Freshness Freshness `json:"freshness"`
	Bytes     ByteCount `json:"bytes"`
}

// AppState is where an app is between two releases.
type AppState string

// The states an agent reports.
const (
	StateWaiting     AppState = "waiting"
	StateHeld        AppState = "held"
	StateDownloading AppState = "downloading"
	StateStaged      AppState = "staged"
	StateCommitting  AppState = "committing"
	StateConfirming  AppState = "confirming"
	StateHealthy     AppState = "healthy" // the new version is confirmed and running
	StateReverted    AppState = "reverted"
	StateFailed      AppState = "failed"
	StateBlocked     AppState = "blocked"
)

var appStates = []AppState{
	StateWaiting, StateHeld, StateDownloading, StateStaged, StateCommitting,
	StateConfirming, StateHealthy, StateReverted, StateFailed, StateBlocked,
}

// Why is the reason for a state that is not healthy.
type Why struct {
	Code  fault.Code `json:"code"`
	Text  string     `json:"text"`
	Until time.Time  `json:"until,omitzero"` // zero: not known
	Next  string     `json:"next,omitempty"` // what a person can do
}

// ByteCount counts bytes received by where they came from, and bytes given to others.
type ByteCount struct {
	LAN     int64 `json:"lan"`
	WAN     int64 `json:"wan"`
	Origin  int64 `json:"origin"`
	Webseed int64 `json:"webseed"`
	Given   int64 `json:"given"`
}

// EventCount is an event and how often it happened since the last report.
type EventCount struct {
	Code   fault.Code `json:"code"`
	Count  int64      `json:"count"`
	Detail string     `json:"detail,omitempty"`
}

type wireReport struct {
	Repo         *string     `json:"repo"`
	Agent        *string     `json:"agent"`
	Counter      *int64      `json:"counter"`
	Time         *string     `json:"time"`
	Host         *string     `json:"host"`
	Platform     *string     `json:"platform"`
	AgentVersion *string     `json:"agent_version"`
	RootVersion  *int64      `json:"root_version"`
	Run          *string     `json:"run,omitempty"`
	Labels       []wireLabel `json:"labels,omitempty"`
	Apps         []wireApp   `json:"apps"`
	Events       []wireEvent `json:"events,omitempty"`
}

type wireLabel struct {
	Name  *string `json:"name"`
	Value *string `json:"value"`
}

type wireApp struct {
	App       *string    `json:"app"`
	Channel   *string    `json:"channel"`
	Epoch     *int64     `json:"epoch"`
	Sequence  *int64     `json:"sequence"`
	Version   *string    `json:"version,omitempty"`
	SHA256    *string    `json:"sha256,omitempty"`
	Offered   *string    `json:"offered,omitempty"`
	State     *string    `json:"state"`
	FailedAt  *string    `json:"failed_at,omitempty"`
	Why       *wireWhy   `json:"why,omitempty"`
	Freshness *string    `json:"freshness"`
	Bytes     *wireBytes `json:"bytes"`
}

type wireWhy struct {
	Code  *string `json:"code"`
	Text  *string `json:"text"`
	Until *string `json:"until,omitempty"`
	Next  *string `json:"next,omitempty"`
}

type wireBytes struct {
	LAN     *int64 `json:"lan"`
	WAN     *int64 `json:"wan"`
	Origin  *int64 `json:"origin"`
	Webseed *int64 `json:"webseed"`
	Given   *int64 `json:"given"`
}

type wireEvent struct {
	Code   *string `json:"code"`
	Count  *int64  `json:"count"`
	Detail *string `json:"detail,omitempty"`
}

// DraftReport returns r as the bytes that are signed. Free text comes from programs and
// other machines, so it is cut and cleaned to fit rather than refused.
func DraftReport(r *Report) ([]byte, error) {
	b := writeJSON(r.wire())
	if _, err := parseReport(b, "report draft"); err != nil {
		return nil, err
	}
	if err := fits(len(b), TypeReport); err != nil {
		return nil, err
	}
	return b, nil
}

// OpenReport verifies a report by the key it carries: the key whose fingerprint it
// names as the agent. Whether that key is one of the fleet's, and whether the counter is
// new, is for the caller, to whom the key is returned. Codes: those of an envelope,
// threshold for a signature that is not the agent's, wrong_target for another fleet's.
func OpenReport(env []byte, repo Digest) (*Report, keys.PublicKey, error) {
	const doc = "report"
	none := keys.PublicKey{}
	e, err := parseEnvelope(env, TypeReport, doc)
	if err != nil {
		return nil, none, err
	}
	if n := len(e.Signatures); n != 1 {
		return nil, none, fault.New(fault.Malformed, "%s has %d signatures, 1 is wanted", doc, n)
	}
	// An agent id is the hash of a key, so the key that hashes to it needs no other
	// proof of being that agent's.
	key, err := e.Signatures[0].Sig.PublicKey()
	if err != nil {
		return nil, none, fault.New(fault.Threshold, "%s: reading the signature: %w", doc, err)
	}
	signed, err := e.open(authority{keys.Role{Threshold: 1, Keys: []keys.PublicKey{key}}, "agent"}, doc)
	if err != nil {
		return nil, none, err
	}
	r, err := parseReport(e.Payload, doc)
	if err != nil {
		return nil, none, err
	}
	if r.Agent != signed[0] {
		return nil, none, fault.New(fault.Threshold, "%s is said to be by %q and signed by %s", doc, clip(string(r.Agent)), signed[0])
	}
	if r.Repo != repo {
		return nil, none, fault.New(fault.WrongTarget, "%s is for the fleet %s, this is %s", doc, r.Repo.Prefixed(), repo.Prefixed()).
			Fact("want", repo.Prefixed()).Fact("found", r.Repo.Prefixed())
	}
	return r, key, nil
}

func parseReport(payload []byte, doc string) (*Report, error) {
	var w wireReport
	if err := decodeWire(payload, &w, doc); err != nil {
		return nil, err
	}
	f := &fields{doc: doc}
	r := &Report{Repo: f.prefixed("repo", w.Repo)}
	if present(f, "agent", w.Agent) {
		r.Agent = keys.ID(*w.Agent)
	}
	r.Counter = f.integer("counter", w.Counter, 1)
	r.Time = f.time("time", w.Time)
	if present(f, "host", w.Host) {
		r.Host = f.text("host", w.Host, maxHost, false)
	}
	if present(f, "platform", w.Platform) {
		p, err := ParsePlatform(*w.Platform)
		if err != nil {
			f.fail(fault.Malformed, "platform", "is %q, which is no platform", clip(*w.Platform))
		}
		r.Platform = p
	}
	r.AgentVersion = f.version("agent_version", w.AgentVersion)
	r.RootVersion = f.integer("root_version", w.RootVersion, 0)
	if w.Run != nil {
		r.Run = f.name("run", w.Run)
	}
	f.atMost("labels", len(w.Labels), maxLabels)
	f.atMost("apps", len(w.Apps), maxApps)
	f.atMost("events", len(w.Events), maxEvents)
	if w.Apps == nil {
		f.fail(fault.Malformed, "apps", "is missing")
	}
	if f.err != nil {
		return nil, f.err
	}
	for i, l := range w.Labels {
		in := f.at("labels[%d]", i)
		label := Label{Name: in.name("name", l.Name)}
		if present(in, "value", l.Value) {
			label.Value = in.text("value", l.Value, maxText, false)
		}
		r.Labels = append(r.Labels, label)
		f.up(in)
	}
	seen := make(map[Channel]bool, len(w.Apps))
	for i := range w.Apps {
		in := f.at("apps[%d]", i)
		a := in.app(&w.Apps[i])
		ch := Channel{a.App, a.Channel}
		if seen[ch] { // or one machine would count as many
			in.fail(fault.Malformed, "channel", "is %s, of which another entry is, too", ch)
		}
		seen[ch] = true
		r.Apps = append(r.Apps, a)
		f.up(in)
	}
	for i, e := range w.Events {
		in := f.at("events[%d]", i)
		r.Events = append(r.Events, EventCount{in.code("code", e.Code), in.integer("count", e.Count, 1), in.text("detail", e.Detail, maxText, false)})
		f.up(in)
	}
	if f.err != nil {
		return nil, f.err
	}
	return r, nil
}

func (f *fields) app(w *wireApp) AppReport {
	a := AppReport{
		App: f.name("app", w.App), Channel: f.name("channel", w.Channel),
		Epoch: f.integer("epoch", w.Epoch, 0), Sequence: f.integer("sequence", w.Sequence, 0),
	}
	if w.Version != nil {
		a.Version = f.version("version", w.Version)
	}
	if w.SHA256 != nil {
		a.SHA256 = f.digest("sha256", w.SHA256)
	}
	if w.Offered != nil {
		a.Offered = f.digest("offered", w.Offered)
	}
	if present(f, "state", w.State) {
		if a.State = AppState(*w.State); !slices.Contains(appStates, a.State) {
			f.fail(fault.Malformed, "state", "is %q, which is no state", clip(*w.State))
		}
	}
	if w.FailedAt != nil {
		a.FailedAt = f.time("failed_at", w.FailedAt)
	}
	if w.Why != nil {
		in := f.at("why")
		a.Why = &Why{Code: in.code("code", w.Why.Code), Next: in.text("next", w.Why.Next, maxText, false)}
		if present(in, "text", w.Why.Text) {
			a.Why.Text = in.text("text", w.Why.Text, maxText, false)
		}
		if w.Why.Until != nil {
			a.Why.Until = in.time("until", w.Why.Until)
		}
		f.up(in)
	} else if a.State != StateHealthy {
		f.fail(fault.Malformed, "why", "is missing; only a healthy app needs none")
	}
	if present(f, "freshness", w.Freshness) {
		switch a.Freshness = Freshness(*w.Freshness); a.Freshness {
		case FreshCurrent, FreshBehind, FreshStale, FreshNone:
		default:
			f.fail(fault.Malformed, "freshness", "is %q", clip(*w.Freshness))
		}
	}
	if present(f, "bytes", w.Bytes) {
		in := f.at("bytes")
		a.Bytes = ByteCount{
			in.integer("lan", w.Bytes.LAN, 0), in.integer("wan", w.Bytes.WAN, 0), in.integer("origin", w.Bytes.Origin, 0),
			in.integer("webseed", w.Bytes.Webseed, 0), in.integer("given", w.Bytes.Given, 0),
		}
		f.up(in)
	}
	return a
}

// code reads a code as a word. A newer agent may have codes this build does not.
func (f *fields) code(member string, v *string) fault.Code {
	if !present(f, member, v) {
		return ""
	}
	word := func(r rune) bool { return 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '_' }
	if *v == "" || len(*v) > maxName || strings.ContainsFunc(*v, func(r rune) bool { return !word(r) }) {
		f.fail(fault.Malformed, member, "is %q, which is no code", clip(*v))
	}
	return fault.Code(*v)
}

func (r *Report) wire() wireReport {
	w := wireReport{
		Repo: new(r.Repo.Prefixed()), Agent: new(string(r.Agent)), Counter: new(r.Counter), Time: formatTime(r.Time),
		Host: new(clean(r.Host, maxHost)), Platform: new(r.Platform.String()), AgentVersion: new(r.AgentVersion),
		RootVersion: new(r.RootVersion), Run: optional(r.Run), Apps: []wireApp{},
	}
	for _, l := range r.Labels {
		w.Labels = append(w.Labels, wireLabel{new(l.Name), new(clean(l.Value, maxText))})
	}
	for i := range r.Apps {
		w.Apps = append(w.Apps, r.Apps[i].wire())
	}
	for _, e := range r.Events {
		w.Events = append(w.Events, wireEvent{new(string(e.Code)), new(e.Count), optional(clean(e.Detail, maxText))})
	}
	return w
}

func (a *AppReport) wire() wireApp {
	w := wireApp{
		App: new(a.App), Channel: new(a.Channel), Epoch: new(a.Epoch), Sequence: new(a.Sequence),
		Version: optional(a.Version), State: new(string(a.State)), Freshness: new(string(a.Freshness)),
		Bytes: &wireBytes{new(a.Bytes.LAN), new(a.Bytes.WAN), new(a.Bytes.Origin), new(a.Bytes.Webseed), new(a.Bytes.Given)},
	}
	if !a.SHA256.IsZero() {
		w.SHA256 = new(a.SHA256.String())
	}
	if !a.Offered.IsZero() {
		w.Offered = new(a.Offered.String())
	}
	if !a.FailedAt.IsZero() {
		w.FailedAt = formatTime(a.FailedAt)
	}
	if a.Why != nil {
		w.Why = &wireWhy{Code: new(string(a.Why.Code)), Text: new(clean(a.Why.Text, maxText)), Next: optional(clean(a.Why.Next, maxText))}
		if !a.Why.Until.IsZero() {
			w.Why.Until = formatTime(a.Why.Until)
		}
	}
	return w
}

// clean makes s free text of at most most bytes.
func clean(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if !printable(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
