package manifest

import (
	"time"

	"shoal/internal/fault"
)

const (
	maxArtifacts   = 256
	maxPayloads    = 16 // of one artifact
	maxBlocked     = 1024
	maxAttachments = 16
)

// Manifest is one release of one channel: every artifact, what it must hash to, and
// the plan by which machines take it.
type Manifest struct {
	Repo            Digest // fleet id
	App, Channel    string
	Epoch, Sequence int64
	Issued, Expires time.Time
	Release         Release
	Rollout         *Rollout // nil: everyone at once
	MinAgent        string   // least agent version (semver), or empty
	Critical        []string // dotted paths of members that an agent must know
	Blocked         []Blocked
	Attachments     []Attachment
	Artifacts       []Artifact
}

// Name returns the channel the manifest is for.
func (m *Manifest) Name() Channel { return Channel{m.App, m.Channel} }

// Order returns the manifest's place in its channel.
func (m *Manifest) Order() Order { return Order{m.Epoch, m.Sequence} }

// Blocks returns the entry that says that content must not run, if there is one.
func (m *Manifest) Blocks(sha256 Digest) (Blocked, bool) {
	for _, b := range m.Blocked {
		if b.SHA256 == sha256 {
			return b, true
		}
	}
	return Blocked{}, false
}

// Release is what people call the release.
type Release struct {
	Version   string // a label: only Order is compared
	Severity  string // "security", "critical"; anything else counts as "normal"
	Immediate bool   // with critical: maintenance windows are skipped
	Notes     string // plain text
}

// Urgent reports whether the release skips maintenance windows. It skips nothing else: no
// signature, order, hold or block.
func (r Release) Urgent() bool { return r.Severity == "critical" && r.Immediate }

// The kinds of artifact.
const (
	KindBinary    = "binary"
	KindTree      = "tree"
	KindInstaller = "installer"
)

// Artifact is one file of a release for one platform, as it is once it is decoded.
type Artifact struct {
	Name     string
	Kind     string // KindBinary, KindTree or KindInstaller; empty in a draft means KindBinary
	OS, Arch string
	Variant  string // empty: none
	Length   int64  // bytes
	SHA256   Digest
	Mode     string // "0755", "0555" or "0644", for a first install
	Payloads []Payload
}

// Platform returns what the artifact is built for.
func (a *Artifact) Platform() Platform { return Platform{a.OS, a.Arch, a.Variant} }

// The one form of payload that every build understands: the file itself.
const (
	PayloadFull = "full"
	CodecNone   = "none"
)

// Usable returns the first payload this build can turn into the artifact. Payloads of
// another kind or codec are for newer agents.
func (a *Artifact) Usable() (*Payload, bool) {
	for i := range a.Payloads {
		if p := &a.Payloads[i]; p.Kind == PayloadFull && p.Codec == CodecNone {
			return p, true
		}
	}
	return nil, false
}

// Payload is one downloadable form of an artifact.
type Payload struct {
	Kind, Codec string
	Length      int64 // bytes
	SHA256      Digest
	Infohash    Infohash
	InfoSHA256  Digest  // SHA-256 of the bencoded info dict
	From        *Digest // what a delta starts from
}

// Blocked is content that must not run.
type Blocked struct {
	SHA256 Digest
	Reason string
}

// Attachment is a file that goes with a release and is never run, such as a bill of
// materials.
type Attachment struct {
	Name, MediaType string
	Length          int64 // bytes
	SHA256          Digest
}

type wireManifest struct {
	Repo        *string          `json:"repo"`
	App         *string          `json:"app"`
	Channel     *string          `json:"channel"`
	Epoch       *int64           `json:"epoch"`
	Sequence    *int64           `json:"sequence"`
	Issued      *string          `json:"issued"`
	Expires     *string          `json:"expires"`
	Release     *wireRelease     `json:"release"`
	Rollout     *wireRollout     `json:"rollout,omitempty"`
	MinAgent    *string          `json:"min_agent,omitempty"`
	Critical    []string         `json:"critical,omitempty"`
	Blocked     []wireBlocked    `json:"blocked,omitempty"`
	Attachments []wireAttachment `json:"attachments,omitempty"`
	Artifacts   []wireArtifact   `json:"artifacts"`
}

type wireRelease struct {
	Version   *string `json:"version"`
	Severity  *string `json:"severity,omitempty"`
	Immediate *bool   `json:"immediate,omitempty"`
	Notes     *string `json:"notes,omitempty"`
}

type wireBlocked struct {
	SHA256 *string `json:"sha256"`
	Reason *string `json:"reason,omitempty"`
}

type wireAttachment struct {
	Name      *string `json:"name"`
	MediaType *string `json:"media_type,omitempty"`
	Length    *int64  `json:"length"`
	SHA256    *string `json:"sha256"`
}

type wireArtifact struct {
	Name     *string       `json:"name"`
	Kind     *string       `json:"kind,omitempty"`
	OS       *string       `json:"os"`
	Arch     *string       `json:"arch"`
	Variant  *string       `json:"variant,omitempty"`
	Length   *int64        `json:"length"`
	SHA256   *string       `json:"sha256"`
	Mode     *string       `json:"mode"`
	Payloads []wirePayload `json:"payloads"`
}

type wirePayload struct {
	Kind       *string `json:"kind"`
	Codec      *string `json:"codec"`
	Length     *int64  `json:"length"`
	SHA256     *string `json:"sha256"`
	Infohash   *string `json:"infohash"`
	InfoSHA256 *string `json:"info_sha256"`
	From       *string `json:"from,omitempty"`
}

// parseManifest reads the shape: JSON types, the members that must be there, and the
// numbers that place it. Everything else is for readDates and readRest.
func parseManifest(payload []byte, doc string) (*wireManifest, *Manifest, error) {
	w := new(wireManifest)
	if err := decodeWire(payload, w, doc); err != nil {
		return nil, nil, err
	}
	f := &fields{doc: doc}
	m := new(Manifest)
	f.place(w.Repo, w.App, w.Channel, w.Epoch, w.Sequence, &m.Repo, &m.App, &m.Channel, &m.Epoch, &m.Sequence)
	present(f, "issued", w.Issued)
	present(f, "expires", w.Expires)
	if present(f, "release", w.Release) {
		present(f, "release.version", w.Release.Version)
	}
	if w.Artifacts == nil {
		f.fail(fault.Malformed, "artifacts", "is missing")
	}
	if f.err != nil {
		return nil, nil, f.err
	}
	return w, m, nil
}

// place reads what manifests and beacons begin with. app and channel are compared with
// what is wanted, which no bad name equals.
func (f *fields) place(repo, app, channel *string, epoch, sequence *int64,
	toRepo *Digest, toApp, toChannel *string, toEpoch, toSequence *int64) {
	*toRepo = f.prefixed("repo", repo)
	if present(f, "app", app) {
		*toApp = *app
	}
	if present(f, "channel", channel) {
		*toChannel = *channel
	}
	*toEpoch = f.integer("epoch", epoch, 1)
	*toSequence = f.integer("sequence", sequence, 1)
}

// readDates reads issued and expires into m.
func (w *wireManifest) readDates(m *Manifest, doc string) error {
	f := &fields{doc: doc}
	m.Issued, m.Expires = f.time("issued", w.Issued), f.time("expires", w.Expires)
	if f.err == nil && !m.Issued.Before(m.Expires) {
		f.fail(fault.Malformed, "expires", "(%s) is not after issued (%s)", *w.Expires, *w.Issued)
	}
	return f.err
}

// readRest reads every other member into m.
func (w *wireManifest) readRest(m *Manifest, doc string) error {
	f := &fields{doc: doc}
	m.App, m.Channel = f.name("app", w.App), f.name("channel", w.Channel)
	m.Release = f.release(w.Release)
	m.Rollout = f.rollout(w.Rollout)
	if w.MinAgent != nil {
		m.MinAgent = *w.MinAgent
	}
	m.Critical = w.Critical
	f.atMost("blocked", len(w.Blocked), maxBlocked)
	f.atMost("attachments", len(w.Attachments), maxAttachments)
	f.atMost("artifacts", len(w.Artifacts), maxArtifacts)
	if len(w.Artifacts) == 0 {
		f.fail(fault.Malformed, "artifacts", "is empty")
	}
	if f.err != nil {
		return f.err
	}
	for i, b := range w.Blocked {
		in := f.at("blocked[%d]", i)
		m.Blocked = append(m.Blocked, Blocked{in.digest("sha256", b.SHA256), in.text("reason", b.Reason, maxText, false)})
		f.up(in)
	}
	for i, a := range w.Attachments {
		in := f.at("attachments[%d]", i)
		m.Attachments = append(m.Attachments, Attachment{
			Name: in.fileName("name", a.Name), MediaType: in.text("media_type", a.MediaType, maxText, false),
			Length: in.integer("length", a.Length, 0), SHA256: in.digest("sha256", a.SHA256),
		})
		f.up(in)
	}
	for i := range w.Artifacts {
		in := f.at("artifacts[%d]", i)
		m.Artifacts = append(m.Artifacts, in.artifact(&w.Artifacts[i]))
		f.up(in)
		if f.err != nil {
			return f.err
		}
	}
	return f.err
}

func (f *fields) release(w *wireRelease) (r Release) {
	in := f.at("release")
	defer f.up(in)
	r.Version = in.version("version", w.Version)
	r.Severity = in.text("severity", w.Severity, maxText, false)
	r.Immediate = w.Immediate != nil && *w.Immediate
	r.Notes = in.text("notes", w.Notes, maxNotes, true)
	return r
}

func (f *fields) artifact(w *wireArtifact) Artifact {
	a := Artifact{Name: f.fileName("name", w.Name), Kind: KindBinary}
	if w.Kind != nil {
		a.Kind = *w.Kind
	}
	switch a.Kind {
	case KindBinary, KindTree, KindInstaller:
	default:
		f.fail(fault.Malformed, "kind", "is %q; %s, %s or %s is wanted", clip(a.Kind), KindBinary, KindTree, KindInstaller)
	}
	a.OS, a.Arch = f.name("os", w.OS), f.name("arch", w.Arch)
	if w.Variant != nil {
		a.Variant = f.name("variant", w.Variant)
	}
	a.Length = f.integer("length", w.Length, 1)
	a.SHA256 = f.digest("sha256", w.SHA256)
	if present(f, "mode", w.Mode) {
		a.Mode = *w.Mode
	}
	switch a.Mode {
	case "0755", "0555":
	case "0644":
		if a.Kind == KindBinary {
			f.fail(fault.Policy, "mode", "is 0644; a binary must be executable, 0755 or 0555")
		}
	default:
		f.fail(fault.Policy, "mode", "is %q; 0755, 0555 or 0644 is allowed", clip(a.Mode))
	}
	if len(w.Payloads) == 0 {
		f.fail(fault.Malformed, "payloads", "is missing or empty")
	}
	f.atMost("payloads", len(w.Payloads), maxPayloads)
	for i := range w.Payloads {
		if f.err != nil {
			break
		}
		in := f.at("payloads[%d]", i)
		a.Payloads = append(a.Payloads, in.payload(&w.Payloads[i], &a))
		f.up(in)
	}
	return a
}

func (f *fields) payload(w *wirePayload, of *Artifact) (p Payload) {
	if present(f, "kind", w.Kind) && present(f, "codec", w.Codec) {
		p.Kind, p.Codec = *w.Kind, *w.Codec
	}
	p.Length = f.integer("length", w.Length, 1)
	p.SHA256 = f.digest("sha256", w.SHA256)
	p.Infohash = f.infohash("infohash", w.Infohash)
	p.InfoSHA256 = f.digest("info_sha256", w.InfoSHA256)
	if w.From != nil {
		p.From = new(f.digest("from", w.From))
	}
	if p.Codec == CodecNone && (p.Length != of.Length || p.SHA256 != of.SHA256) {
		f.fail(fault.Malformed, "codec", "is none, but length or sha256 are not the artifact's")
	}
	return p
}

func (m *Manifest) wire() wireManifest {
	w := wireManifest{
		Repo: new(m.Repo.Prefixed()), App: new(m.App), Channel: new(m.Channel),
		Epoch: new(m.Epoch), Sequence: new(m.Sequence),
		Issued: formatTime(m.Issued), Expires: formatTime(m.Expires),
		Release: &wireRelease{
			Version: new(m.Release.Version), Severity: optional(m.Release.Severity),
			Immediate: optional(m.Release.Immediate), Notes: optional(m.Release.Notes),
		},
		Rollout: m.Rollout.wire(), MinAgent: optional(m.MinAgent), Critical: m.Critical,
		Artifacts: []wireArtifact{},
	}
	for _, b := range m.Blocked {
		w.Blocked = append(w.Blocked, wireBlocked{new(b.SHA256.String()), optional(b.Reason)})
	}
	for _, a := range m.Attachments {
		w.Attachments = append(w.Attachments, wireAttachment{new(a.Name), optional(a.MediaType), new(a.Length), new(a.SHA256.String())})
	}
	for i := range m.Artifacts {
		w.Artifacts = append(w.Artifacts, m.Artifacts[i].wire())
	}
	return w
}

func (a *Artifact) wire() wireArtifact {
	kind := a.Kind
	if kind == "" {
		kind = KindBinary
	}
	w := wireArtifact{
		Name: new(a.Name), Kind: new(kind), OS: new(a.OS), Arch: new(a.Arch), Variant: optional(a.Variant),
		Length: new(a.Length), SHA256: new(a.SHA256.String()), Mode: new(a.Mode), Payloads: []wirePayload{},
	}
	for _, p := range a.Payloads {
		wp := wirePayload{
			Kind: new(p.Kind), Codec: new(p.Codec), Length: new(p.Length), SHA256: new(p.SHA256.String()),
			Infohash: new(p.Infohash.String()), InfoSHA256: new(p.InfoSHA256.String()),
		}
		if p.From != nil {
			wp.From = new(p.From.String())
		}
		w.Payloads = append(w.Payloads, wp)
	}
	return w
}
