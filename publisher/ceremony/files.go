package ceremony

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
)

const maxSignature = 64 << 10 // an armoured signature takes about 300 bytes

// ManifestFile is a manifest in a file: a draft, or an envelope with signatures that
// nobody has checked yet.
type ManifestFile struct {
	Path     string
	Payload  []byte
	Manifest *manifest.Manifest
	Envelope *manifest.Envelope // nil for a draft
}

// RootFile is the same of a root.
type RootFile struct {
	Path     string
	Payload  []byte
	Root     *manifest.Root
	Envelope *manifest.Envelope // nil for a draft
}

// Hash is that of the payload: what a signature is over, whoever signed.
func (f *ManifestFile) Hash() manifest.Digest { return manifest.Sum(f.Payload) }

// Hash is that of the payload.
func (f *RootFile) Hash() manifest.Digest { return manifest.Sum(f.Payload) }

// FleetID is the fleet a root is of: a first root is what names it.
func (f *RootFile) FleetID() manifest.Digest {
	if f.Root.ID != nil {
		return *f.Root.ID
	}
	return f.Hash()
}

// ReadManifest reads a manifest's draft or envelope.
func ReadManifest(path string) (*ManifestFile, error) {
	b, err := readFile(path, manifest.MaxManifest)
	if err != nil {
		return nil, err
	}
	return parseManifestFile(path, b)
}

func parseManifestFile(path string, b []byte) (*ManifestFile, error) {
	f := &ManifestFile{Path: path, Payload: b}
	if isEnvelope(b) {
		env, err := manifest.ParseEnvelope(b, manifest.TypeManifest)
		if err != nil {
			return nil, inFile(path, err)
		}
		f.Envelope, f.Payload = env, env.Payload
	}
	var err error
	f.Manifest, err = manifest.ReadManifestDraft(f.Payload)
	return f, inFile(path, err)
}

// ReadRoot reads a root's draft or envelope.
func ReadRoot(path string) (*RootFile, error) {
	b, err := readFile(path, manifest.MaxRoot)
	if err != nil {
		return nil, err
	}
	r, env, err := parseRootFile(path, b)
	if err != nil {
		return nil, err
	}
	f := &RootFile{Path: path, Payload: b, Root: r, Envelope: env}
	if env != nil {
		f.Payload = env.Payload
	}
	return f, nil
}

func parseRootFile(path string, b []byte) (*manifest.Root, *manifest.Envelope, error) {
	var env *manifest.Envelope
	if isEnvelope(b) {
		var err error
		if env, err = manifest.ParseEnvelope(b, manifest.TypeRoot); err != nil {
			return nil, nil, inFile(path, err)
		}
		b = env.Payload
	}
	r, err := manifest.ReadRootDraft(b)
	return r, env, inFile(path, err)
}

// IsRoot reports whether the file is a root, signed or not, as far as its outside tells.
func IsRoot(path string) (bool, error) {
	b, err := readFile(path, manifest.MaxManifest)
	if err != nil {
		return false, err
	}
	var head struct {
		Type manifest.Type   `json:"type"`
		Keys json.RawMessage `json:"keys"`
	}
	return json.Unmarshal(b, &head) == nil && (head.Type == manifest.TypeRoot || len(head.Keys) > 0), nil
}

// isEnvelope tells an envelope from a draft. It decides only how the file is read.
func isEnvelope(b []byte) bool {
	var head struct{ Type, Payload *string }
	return json.Unmarshal(b, &head) == nil && head.Type != nil && head.Payload != nil
}

// inFile says in which file something is wrong.
func inFile(path string, err error) error {
	var f *fault.Error
	if !errors.As(err, &f) {
		return err
	}
	f.Message = fmt.Sprintf("%q: %s", path, f.Message)
	return f.Fact("file", path)
}

// signatureFile is what a file has of signatures.
type signatureFile struct {
	Path    string
	Entries []keys.Entry
}

// readSignatures reads a signature as ssh-keygen and this package write it, or those of
// an envelope, which must be over payload.
func readSignatures(path string, t manifest.Type, payload []byte) (*signatureFile, error) {
	b, err := readFile(path, max(maxSignature, int64(t.MaxSize())))
	if err != nil {
		return nil, err
	}
	if isEnvelope(b) {
		env, err := manifest.ParseEnvelope(b, t)
		if err != nil {
			return nil, inFile(path, err)
		}
		if env.PayloadHash() != manifest.Sum(payload) {
			return nil, otherContent(path)
		}
		return &signatureFile{path, env.Signatures}, nil
	}
	sig, err := keys.ParseSignature(b)
	if err != nil {
		return nil, fault.New(fault.Malformed, "%q is not a signature: %w", path, err).
			Line("A signature is the file that ssh-keygen -Y sign or shoal has written.").Fact("file", path)
	}
	id, err := sig.KeyID()
	if err != nil {
		return nil, fault.New(fault.Malformed, "%q is not a signature: %w", path, err).Fact("file", path)
	}
	return &signatureFile{path, []keys.Entry{{KeyID: id, Sig: sig}}}, nil
}

func otherContent(path string) *fault.Error {
	return fault.New(fault.ContentMismatch, "%q was not made over this file", path).
		Line("A signature is good for the very bytes that were signed, and for no other type of document.").
		Do("sign the file again, as it is now").Fact("file", path)
}

// signatureName is where the signature over path by k goes: path, the key's comment, sig.
func signatureName(path string, k keys.PublicKey) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("._@-", r):
			return r
		}
		return '_'
	}, k.Comment())
	if strings.Trim(name, "._") == "" {
		name = strings.NewReplacer("/", "_", "+", "_").Replace(strings.TrimPrefix(string(k.ID()), "SHA256:")[:12])
	}
	return path + "." + name[:min(len(name), 64)] + ".sig"
}

// writeSignature stores a signature beside what was signed. It replaces one by the same
// key, and nothing else.
func writeSignature(path string, k keys.PublicKey, sig keys.Signature) (string, error) {
	name := signatureName(path, k)
	b, err := readFile(name, maxSignature)
	switch {
	case err == nil:
		old, perr := keys.ParseSignature(b)
		if perr == nil {
			if id, ierr := old.KeyID(); ierr == nil && id == k.ID() {
				break
			}
		}
		return "", fault.New(fault.Usage, "%q is there already, and is not a signature by this key", name).
			Line("Nothing is overwritten that somebody else may need.").Do("move it away").Fact("file", name)
	case !errors.Is(err, fault.NotFound):
		return "", err
	}
	if err := durable.WriteFile(name, sig.Armor(), 0o644); err != nil {
		code := fault.IO
		if errors.Is(err, fs.ErrPermission) {
			code = fault.Permission
		}
		return "", fault.New(code, "writing %q: %w", filepath.Base(name), err)
	}
	return name, nil
}

// Key is a key as results tell of it.
type Key struct {
	Name string  `json:"name"` // its comment, else its fingerprint
	ID   keys.ID `json:"id"`
}

func keyOf(k keys.PublicKey) Key {
	if c := k.Comment(); c != "" {
		return Key{c, k.ID()}
	}
	return Key{string(k.ID()), k.ID()}
}

// named is a key of r.
func named(r *manifest.Root, id keys.ID) Key {
	if k, err := keys.ParsePublicKey(r.Keys[id]); err == nil {
		return keyOf(k)
	}
	return Key{string(id), id}
}

func (k Key) String() string {
	if k.Name == string(k.ID) {
		return k.Name
	}
	return k.Name + " (" + string(k.ID) + ")"
}

func namesOf(list []Key) string {
	var names []string
	for _, k := range list {
		names = append(names, k.Name)
	}
	if len(names) == 0 {
		return "nobody"
	}
	return strings.Join(names, ", ")
}

// Signers says how far a role is.
type Signers struct {
	Role      string `json:"role"` // "root 1", "acme/stable"
	Threshold int    `json:"threshold"`
	Signed    []Key  `json:"signed"`
	Missing   []Key  `json:"missing"` // could sign, and have not
}

// Complete reports whether enough have signed.
func (s *Signers) Complete() bool { return len(s.Signed) >= s.Threshold }

// Sentence says it for people.
func (s *Signers) Sentence() string {
	if s.Complete() {
		return fmt.Sprintf("%s: %d of %d signatures, by %s", s.Role, len(s.Signed), s.Threshold, namesOf(s.Signed))
	}
	return fmt.Sprintf("%s: %d of %d signatures, by %s; %d more of %s", s.Role, len(s.Signed), s.Threshold,
		namesOf(s.Signed), s.Threshold-len(s.Signed), namesOf(s.Missing))
}

// signersOf holds an envelope against a role of r.
func signersOf(name string, r *manifest.Root, spec manifest.RoleSpec, env *manifest.Envelope) (Signers, error) {
	role, err := r.Role(spec)
	if err != nil {
		return Signers{}, err
	}
	signed, err := role.Verify(string(env.Type), env.Payload, env.Signatures)
	var few *keys.ThresholdError
	if errors.As(err, &few) {
		signed, err = few.Signed, nil
	}
	if err != nil {
		return Signers{}, fault.New(fault.BadKey, "the role %s: %w", name, err)
	}
	s := Signers{Role: name, Threshold: role.Threshold, Signed: []Key{}, Missing: []Key{}}
	for _, k := range role.Keys {
		if slices.Contains(signed, k.ID()) {
			s.Signed = append(s.Signed, keyOf(k))
		} else {
			s.Missing = append(s.Missing, keyOf(k))
		}
	}
	return s, nil
}

// missing is the error of an envelope that needs more signatures.
func missing(what string, roles []Signers) *fault.Error {
	var worst *Signers
	f := fault.New(fault.Threshold, "%s is not signed by enough keys", what)
	for i := range roles {
		f.Line("%s", roles[i].Sentence())
		if !roles[i].Complete() && worst == nil {
			worst = &roles[i]
		}
	}
	if worst == nil {
		return nil
	}
	return f.Fact("role", worst.Role).Fact("have", len(worst.Signed)).Fact("want", worst.Threshold).
		Fact("missing", worst.Missing).Fact("roles", roles)
}
