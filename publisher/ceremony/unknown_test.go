package ceremony_test

import (
	"path/filepath"
	"strings"
	"testing"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/publisher"
	"shoal/publisher/ceremony"
)

// Nobody signs what they could not be shown: a member that this build does not know may
// mean something to the machines of another.
func TestNobodySignsAnUnknownMember(t *testing.T) {
	f := newFleet(t)
	f.publish(stable, "1.0.0", "one", "ann", "ben")
	payload, _, err := f.publisher().Draft(t.Context(), f.request(stable, "1.1.0", "two"))
	if err != nil {
		t.Fatal(err)
	}
	for member, edit := range map[string][2]string{
		"run_first":          {`{`, `{"run_first": "/bin/sh",`},
		"artifacts.0.script": {`"kind": "binary"`, `"script": "x", "kind": "binary"`},
	} {
		path := f.file("d-"+member+".json", strings.Replace(string(payload), edit[0], edit[1], 1))
		shown := false
		req := f.signing(path, "ann")
		req.Show = func(*ceremony.Review) { shown = true }
		fl := f.open()
		_, err := fl.SignManifest(t.Context(), req)
		fl.Close()
		if e := wantCode(t, err, fault.AgentTooOld); e.Facts["member"] != member || shown {
			t.Errorf("%q, shown %t; want the member %q named, and nothing asked", e.Facts["member"], shown, member)
		}
		if signed, _ := filepath.Glob(path + "*.sig"); len(signed) > 0 {
			t.Errorf("refused, and signed all the same: %s", signed)
		}
		env := f.file("e-"+member+".json", string(f.sign([]byte(strings.Replace(string(payload), edit[0], edit[1], 1)), "shoal.manifest.v1", "ann")))
		more := publisher.EnvelopeRequest{Envelope: env, Files: []string{filepath.Join(f.dir, "dist", "1.1.0")}, Keys: f.signing("", "ben").Keys}
		if _, err := f.publisher().PublishEnvelope(t.Context(), more); err == nil {
			t.Error("publishing signed it")
		} else {
			wantCode(t, err, fault.AgentTooOld)
		}
	}
	d, err := ceremony.DraftRoot(nil, ceremony.RootDraft{
		Fleet: "acme", Root: &keys.Role{Threshold: 1, Keys: f.role(1, "ann").Keys},
		Channels: []ceremony.ChannelDraft{{Channel: stable, Release: f.role(1, "ben")}},
	}, f.now)
	if err != nil {
		t.Fatal(err)
	}
	path := f.file("root.json", strings.Replace(string(d.Payload), `"max_validity"`, `"anyone": true, "max_validity"`, 1))
	_, err = ceremony.SignRoot(t.Context(), nil, f.signing(path, "ann"), f.now)
	wantCode(t, err, fault.AgentTooOld)
}
