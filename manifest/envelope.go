package manifest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	jsonexp "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest/strictjson"
)

// The largest envelope of each type, in bytes. Whoever reads one from outside stops
// after one byte more.
const (
	MaxRoot     = 128 << 10
	MaxManifest = 1 << 20
	MaxBeacon   = 16 << 10
	MaxReport   = 16 << 10
)

const maxSignatures = 32 // of one envelope

// Type names a kind of document, on the wire and as the namespace of its signatures:
// a signature over one type is none over another.
type Type string

// The types of document.
const (
	TypeRoot     Type = "shoal.root.v1"
	TypeManifest Type = "shoal.manifest.v1"
	TypeBeacon   Type = "shoal.beacon.v1"
	TypeReport   Type = "shoal.report.v1"
)

// word is what people call a document of the type.
func (t Type) word() string {
	switch t {
	case TypeRoot:
		return "root"
	case TypeManifest:
		return "manifest"
	case TypeBeacon:
		return "beacon"
	case TypeReport:
		return "report"
	}
	return fmt.Sprintf("document of type %q", clip(string(t)))
}

// MaxSize returns the largest envelope of the type, in bytes; 0 for an unknown type.
func (t Type) MaxSize() int {
	switch t {
	case TypeRoot:
		return MaxRoot
	case TypeManifest:
		return MaxManifest
	case TypeBeacon:
		return MaxBeacon
	case TypeReport:
		return MaxReport
	}
	return 0
}

// Envelope is a document's exact bytes with signatures over them. Nothing in it is to
// be believed before the right role has opened it, which is what [Trust] does.
type Envelope struct {
	Type       Type
	Payload    []byte
	Signatures []keys.Entry // one whose signature could not be decoded has an empty Sig

	proofs jsontext.Value // kept for others; nothing here reads them
}

// wireEnvelope has exactly these members; the entries of signatures may have more.
type wireEnvelope struct {
	Type       *string          `json:"type"`
	Payload    *string          `json:"payload"`
	Signatures jsontext.Value   `json:"signatures"`
	Proofs     []jsontext.Value `json:"proofs"`
}

type wireEntry struct {
	KeyID *string `json:"keyid"`
	Sig   *string `json:"sig"`
}

// NewEnvelope returns payload without signatures.
func NewEnvelope(t Type, payload []byte) *Envelope {
	return &Envelope{Type: t, Payload: bytes.Clone(payload)}
}

// ParseEnvelope reads the shape of an envelope of the wanted type and believes none of
// it. Its errors have the codes too_large, malformed and wrong_type. An entry whose
// signature is not base64 stays an entry without a signature: junk beside good
// signatures must not spoil them.
func ParseEnvelope(b []byte, want Type) (*Envelope, error) {
	return parseEnvelope(b, want, want.word())
}

// parseEnvelope calls the document doc in messages.
func parseEnvelope(b []byte, want Type, doc string) (*Envelope, error) {
	if most := want.MaxSize(); len(b) > most {
		return nil, fault.New(fault.TooLarge, "%s is larger than the %d bytes a document of its type may have", doc, most).
			Fact("limit", most)
	}
	var w wireEnvelope
	if err := strictjson.Decode(b, &w, jsonexp.RejectUnknownMembers(true)); err != nil {
		return nil, notJSON(doc+" envelope", err)
	}
	if w.Type == nil || w.Payload == nil || w.Signatures == nil {
		return nil, fault.New(fault.Malformed, "%s envelope must have the members type, payload and signatures", doc)
	}
	var entries []wireEntry
	if err := jsonexp.Unmarshal(w.Signatures, &entries); err != nil {
		return nil, notJSON(doc+" envelope", err)
	}
	for i, s := range entries {
		if s.KeyID == nil || s.Sig == nil {
			return nil, fault.New(fault.Malformed, "%s envelope: signatures[%d] must have keyid and sig", doc, i)
		}
	}
	if *w.Type != string(want) {
		return nil, fault.New(fault.WrongType, "%s is of type %q, %q is wanted", doc, clip(*w.Type), want).
			Fact("want", string(want)).Fact("found", clip(*w.Type))
	}
	e := &Envelope{Type: want}
	var ok bool
	if e.Payload, ok = decodeBase64(*w.Payload); !ok {
		return nil, fault.New(fault.Malformed, "%s envelope: payload is not base64 in its one standard form", doc)
	}
	if n := len(entries); n < 1 || n > maxSignatures {
		return nil, fault.New(fault.Malformed, "%s envelope has %d signatures, 1 to %d are allowed", doc, n, maxSignatures)
	}
	seen := make(map[string]bool, len(entries))
	for _, s := range entries {
		if seen[*s.KeyID] {
			return nil, fault.New(fault.Malformed, "%s envelope has two signatures with the keyid %q", doc, clip(*s.KeyID))
		}
		seen[*s.KeyID] = true
		sig, _ := decodeBase64(*s.Sig)
		e.Signatures = append(e.Signatures, keys.Entry{KeyID: keys.ID(*s.KeyID), Sig: sig})
	}
	if w.Proofs != nil {
		e.proofs, _ = jsonexp.Marshal(w.Proofs)
	}
	return e, nil
}

// Attach adds a signature, in the place of one with the same keyid. It does not verify
// it: that needs a role.
func (e *Envelope) Attach(s keys.Entry) error {
	if s.KeyID == "" || len(s.Sig) == 0 {
		return fault.New(fault.Malformed, "attaching a signature: it is empty")
	}
	for i := range e.Signatures {
		if e.Signatures[i].KeyID == s.KeyID {
			e.Signatures[i] = s
			return nil
		}
	}
	if len(e.Signatures) >= maxSignatures {
		return fault.New(fault.Malformed, "attaching a signature: the envelope has %d already, the most there may be", maxSignatures)
	}
	e.Signatures = append(e.Signatures, s)
	return nil
}

// Marshal returns the envelope as it travels. An envelope is parsed only once it has a
// signature.
func (e *Envelope) Marshal() []byte {
	payload := base64.StdEncoding.EncodeToString(e.Payload)
	w := struct {
		Type       Type            `json:"type"`
		Payload    string          `json:"payload"`
		Signatures []wireEntry     `json:"signatures"`
		Proofs     json.RawMessage `json:"proofs,omitempty"`
	}{e.Type, payload, make([]wireEntry, 0, len(e.Signatures)), json.RawMessage(e.proofs)}
	for _, s := range e.Signatures {
		w.Signatures = append(w.Signatures, wireEntry{new(string(s.KeyID)), new(base64.StdEncoding.EncodeToString(s.Sig))})
	}
	return writeJSON(w)
}

// PayloadHash returns the SHA-256 of the payload: the identity of a document, whoever
// signed it and however often.
func (e *Envelope) PayloadHash() Digest { return Sum(e.Payload) }

// authority is a role of a root, with what to call it.
type authority struct {
	role keys.Role
	name string // "release", "beacon", "trusted root", "new root"
}

// open verifies the signatures for the authority and returns who signed. It is the only
// way to a payload that may be parsed.
func (e *Envelope) open(a authority, doc string) ([]keys.ID, error) {
	signed, err := a.role.Verify(string(e.Type), e.Payload, e.Signatures)
	if err == nil {
		return signed, nil
	}
	short := &keys.ThresholdError{Want: a.role.Threshold}
	errors.As(err, &short)
	f := fault.New(fault.Threshold, "%s has %d of %d required signatures of the %s role", doc, short.Have, short.Want, a.name)
	f.Err = err
	f.Fact("have", short.Have).Fact("want", short.Want).Fact("role", a.name).Fact("payload_sha256", e.PayloadHash().String())

	names := make(map[keys.ID]string, len(a.role.Keys))
	for _, k := range a.role.Keys {
		names[k.ID()] = k.Comment()
	}
	good := make(map[keys.ID]bool, len(short.Signed))
	var signers, ids []string
	for _, id := range short.Signed {
		good[id] = true
		ids = append(ids, string(id))
		signers = append(signers, strings.TrimSpace(names[id]+" ("+string(id)+")"))
	}
	if len(signers) == 0 {
		f.Line("No signature in it is good and of a key of the %s role.", a.name)
	} else {
		f.Line("Signed by %s and nobody else who counts.", strings.Join(signers, ", "))
	}
	f.Fact("signed", ids)
	var broken, strangers []string
	for _, s := range e.Signatures {
		switch _, member := names[s.KeyID]; {
		case member && !good[s.KeyID]:
			broken = append(broken, clip(string(s.KeyID)))
		case !member:
			strangers = append(strangers, clip(string(s.KeyID)))
		}
	}
	if len(broken) > 0 {
		f.Line("Signatures that name a key of the role and are not good: %q.", broken)
	}
	if len(strangers) > 0 {
		f.Line("Signatures that name keys the role does not have: %q.", strangers)
	}
	return nil, f
}

// decodeBase64 takes base64 in its one standard form: padded, no line ends (which the
// decoder would skip), no stray bits.
func decodeBase64(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, false
	}
	return b, true
}
