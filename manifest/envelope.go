package manifest

import (
	"shoal/internal/fault"
	"shoal/keys"
)

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

// The largest envelope of each type, in bytes. Readers are limited to one more before
// they buffer.
const (
	MaxRoot     = 128 << 10
	MaxManifest = 1 << 20
	MaxBeacon   = 16 << 10
	MaxReport   = 16 << 10
)

// Envelope is a document's exact bytes with signatures over them. Nothing in it is to
// be believed before a role has opened it.
type Envelope struct {
	Type       Type
	Payload    []byte
	Signatures []keys.Entry
}

var errStub = fault.New(fault.IO, "not built yet")

func ParseEnvelope(b []byte, want Type) (*Envelope, error) { return nil, errStub }
func NewEnvelope(t Type, payload []byte) *Envelope         { return &Envelope{Type: t, Payload: payload} }
func (e *Envelope) Attach(s keys.Entry) error              { return errStub }
func (e *Envelope) Marshal() []byte                        { return nil }
func (e *Envelope) PayloadHash() Digest                    { return Sum(e.Payload) }
