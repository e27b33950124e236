package manifest_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
)

const sig = `{"keyid":"SHA256:a","sig":"eA=="}`

func wrap(typ, payload, sigs string) string {
	return fmt.Sprintf(`{"type":%s,"payload":%s,"signatures":%s}`, typ, payload, sigs)
}

func TestParseEnvelope(t *testing.T) {
	const typ, pay = `"shoal.beacon.v1"`, `"e30="`
	rows := []struct {
		name, in string
		want     fault.Code
	}{
		{"good", wrap(typ, pay, "["+sig+"]"), fault.OK},
		{"empty-payload", wrap(typ, `""`, "["+sig+"]"), fault.OK}, // for the role to refuse
		{"proofs", `{"proofs":[],` + wrap(typ, pay, "["+sig+"]")[1:], fault.OK},
		{"entry-with-more-members", wrap(typ, pay, `[{"keyid":"a","sig":"eA==","x":{"y":1}}]`), fault.OK},
		{"signature-not-base64", wrap(typ, pay, `[{"keyid":"a","sig":"?"}]`), fault.OK},
		{"another-type", wrap(`"shoal.root.v1"`, pay, "["+sig+"]"), fault.WrongType},
		{"future-type", wrap(`"shoal.beacon.v2"`, pay, "["+sig+"]"), fault.WrongType},
		{"wrong-type-before-bad-payload", wrap(`"x"`, `"?"`, "["+sig+"]"), fault.WrongType},
		{"malformed-before-wrong-type", wrap(`"x"`, pay, `{}`), fault.Malformed},
		{"unknown-member", `{"x":1,` + wrap(typ, pay, "["+sig+"]")[1:], fault.Malformed},
		{"proofs-no-array", `{"proofs":{},` + wrap(typ, pay, "["+sig+"]")[1:], fault.Malformed},
		{"proofs-with-null", `{"proofs":[null],` + wrap(typ, pay, "["+sig+"]")[1:], fault.Malformed},
		{"member-in-upper-case", strings.Replace(wrap(typ, pay, "["+sig+"]"), "type", "TYPE", 1), fault.Malformed},
		{"duplicate-payload", `{"payload":"",` + wrap(typ, pay, "["+sig+"]")[1:], fault.Malformed},
		{"no-type", `{"payload":"e30=","signatures":[` + sig + `]}`, fault.Malformed},
		{"no-payload", `{"type":"shoal.beacon.v1","signatures":[` + sig + `]}`, fault.Malformed},
		{"no-signatures", `{"type":"shoal.beacon.v1","payload":"e30="}`, fault.Malformed},
		{"empty-signatures", wrap(typ, pay, `[]`), fault.Malformed},
		{"payload-without-padding", wrap(typ, `"e30"`, "["+sig+"]"), fault.Malformed},
		{"payload-url-alphabet", wrap(typ, `"_-8="`, "["+sig+"]"), fault.Malformed},
		{"payload-stray-bits", wrap(typ, `"e31="`, "["+sig+"]"), fault.Malformed},
		{"payload-with-line-end", wrap(typ, `"e3\n0="`, "["+sig+"]"), fault.Malformed},
		{"payload-with-space", wrap(typ, `"e3 0="`, "["+sig+"]"), fault.Malformed},
		{"payload-object", wrap(typ, `{}`, "["+sig+"]"), fault.Malformed},
		{"same-keyid-twice", wrap(typ, pay, "["+sig+","+sig+"]"), fault.Malformed},
		{"keyid-number", wrap(typ, pay, `[{"keyid":1,"sig":"eA=="}]`), fault.Malformed},
		{"sig-missing", wrap(typ, pay, `[{"keyid":"a"}]`), fault.Malformed},
		{"keyid-missing", wrap(typ, pay, `[{"sig":"eA=="}]`), fault.Malformed},
		{"entry-text", wrap(typ, pay, `["x"]`), fault.Malformed},
		{"too-large", `{` + strings.Repeat(" ", manifest.MaxBeacon), fault.TooLarge},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			e, err := manifest.ParseEnvelope([]byte(r.in), manifest.TypeBeacon)
			if got := fault.CodeOf(err); got != r.want {
				t.Fatalf("got %v, want %s", err, r.want)
			}
			if (e == nil) != (err != nil) {
				t.Error("neither an envelope nor an error, or both")
			}
		})
	}
}

func TestEnvelopeRoundTrip(t *testing.T) {
	f := mt.New(t)
	env := f.Manifest(mt.Stable, 42)
	env = bytes.Replace(env, []byte(`"type"`), []byte(`"proofs": [{"log": [1, "<&>"]}], "type"`), 1)
	e, err := manifest.ParseEnvelope(env, manifest.TypeManifest)
	if err != nil {
		t.Fatal(err)
	}
	again, err := manifest.ParseEnvelope(e.Marshal(), manifest.TypeManifest)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(e, again, cmp.AllowUnexported(manifest.Envelope{})); d != "" {
		t.Error(d)
	}
	if !bytes.Contains(again.Marshal(), []byte(`"proofs"`)) {
		t.Error("proofs are lost on the way through a signer")
	}
	if again.PayloadHash() != manifest.Sum(again.Payload) {
		t.Error("the hash is not of the payload")
	}
}

func TestAttach(t *testing.T) {
	e := manifest.NewEnvelope(manifest.TypeManifest, []byte("{}"))
	add := func(id string, sig string) error { return e.Attach(keys.Entry{KeyID: keys.ID(id), Sig: []byte(sig)}) }
	if err := add("a", "1"); err != nil {
		t.Fatal(err)
	}
	if err := add("a", "2"); err != nil || len(e.Signatures) != 1 || string(e.Signatures[0].Sig) != "2" {
		t.Errorf("%v: %v", err, e.Signatures)
	}
	if fault.CodeOf(add("", "1")) != fault.Malformed || fault.CodeOf(add("b", "")) != fault.Malformed {
		t.Error("an empty signature is attached")
	}
	for i := 1; i < 32; i++ {
		if err := add(fmt.Sprint(i), "x"); err != nil {
			t.Fatal(err)
		}
	}
	if fault.CodeOf(add("one-more", "x")) != fault.Malformed || len(e.Signatures) != 32 {
		t.Error("a signature more than any reader takes is attached")
	}
	if err := add("a", "3"); err != nil {
		t.Error(err)
	}
	if _, err := manifest.ParseEnvelope(e.Marshal(), manifest.TypeManifest); err != nil {
		t.Error(err)
	}
}

// TestMalleableEnvelopes: base64 and JSON can be written in many ways, the payload hash
// is one.
func TestMalleableEnvelopes(t *testing.T) {
	f := mt.New(t)
	env := f.Manifest(mt.Stable, 42)
	e, _ := manifest.ParseEnvelope(env, manifest.TypeManifest)
	other := []byte(fmt.Sprintf(`{ "signatures": [{"sig":%q,"keyid":%q},{"sig":%q,"keyid":%q}],"payload":%q,"type":"shoal.manifest.v1"}`,
		base64.StdEncoding.EncodeToString(e.Signatures[1].Sig), e.Signatures[1].KeyID,
		base64.StdEncoding.EncodeToString(e.Signatures[0].Sig), e.Signatures[0].KeyID,
		base64.StdEncoding.EncodeToString(e.Payload)))
	trust := f.Trust()
	take(t, trust, mt.Stable, env)
	if v := take(t, trust, mt.Stable, other); !v.Same {
		t.Error("another spelling of one document is another document")
	}
}
