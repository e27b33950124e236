package keys_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"shoal/keys"
	"shoal/keys/keystest"
)

func TestRoleCheck(t *testing.T) {
	public := func(n int) []keys.PublicKey {
		var ks []keys.PublicKey
		for i := range n {
			ks = append(ks, keystest.New(t, fmt.Sprint("key-", i)).Public())
		}
		return ks
	}
	alice, token := keystest.New(t, "alice").Public(), keystest.NewSK(t, "alice").Public()
	if alice.ID() == token.ID() || alice.Point() != token.Point() {
		t.Fatal("the plain and the FIDO2 form must have two IDs and one point")
	}
	for _, tt := range []struct {
		name string
		role keys.Role
		want string // empty: sound
	}{
		{"1-of-1", keys.Role{Threshold: 1, Keys: public(1)}, ""},
		{"3-of-3", keys.Role{Threshold: 3, Keys: public(3)}, ""},
		{"32-of-64", keys.Role{Threshold: 32, Keys: public(64)}, ""},
		{"zero-value", keys.Role{}, "threshold"},
		{"no-keys", keys.Role{Threshold: 1}, "threshold"},
		{"threshold-0", keys.Role{Threshold: 0, Keys: public(2)}, "threshold"},
		{"threshold-negative", keys.Role{Threshold: -1, Keys: public(2)}, "threshold"},
		{"threshold-over-keys", keys.Role{Threshold: 3, Keys: public(2)}, "threshold"},
		{"threshold-over-32", keys.Role{Threshold: 33, Keys: public(40)}, "threshold"},
		{"65-keys", keys.Role{Threshold: 1, Keys: public(65)}, "65 keys"},
		{"one-key-twice", keys.Role{Threshold: 2, Keys: []keys.PublicKey{alice, alice}}, "twice"},
		{"one-point-as-plain-and-fido2", keys.Role{Threshold: 2, Keys: []keys.PublicKey{alice, token}}, "twice"},
		{"empty-key", keys.Role{Threshold: 1, Keys: []keys.PublicKey{{}}}, "empty key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.role.Check()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Check: %v, want %q", err, tt.want)
			}
			if tt.want == "" {
				return
			}
			_, err = tt.role.Verify(namespace, msg, nil)
			if err == nil || errors.Is(err, keys.ErrThreshold) {
				t.Errorf("Verify with an unsound role: %v", err)
			}
		})
	}
}

func TestRoleVerify(t *testing.T) {
	role, signers := keystest.NewRole(t, 2, "alice", "bob", "carol")
	alice, bob, carol := signers[0], signers[1], signers[2]
	mallory := keystest.New(t, "mallory")
	by := func(signers ...keys.Signer) []keys.Entry { return keystest.Sign(t, namespace, msg, signers...) }
	junk := func(s keys.Signer, sig string) keys.Entry {
		return keys.Entry{KeyID: s.Public().ID(), Sig: keys.Signature(sig)}
	}
	// relabelled is a good signature filed under another key's ID.
	relabelled := func(from, to keys.Signer) keys.Entry {
		return keys.Entry{KeyID: to.Public().ID(), Sig: by(from)[0].Sig}
	}
	many := by(alice, bob)
	for i := range 31 {
		many = append(many, by(keystest.New(t, fmt.Sprint("stranger-", i)))...)
	}
	for _, tt := range []struct {
		name   string
		sigs   []keys.Entry
		signed []keys.Signer
		ok     bool
	}{
		{"two-of-three", by(alice, bob), []keys.Signer{alice, bob}, true},
		{"in-the-roles-order", by(carol, alice), []keys.Signer{alice, carol}, true},
		{"three-of-three", by(alice, bob, carol), []keys.Signer{alice, bob, carol}, true},
		{"nothing", nil, nil, false},
		{"fewer-than-the-threshold", by(bob), []keys.Signer{bob}, false},
		{"same-key-counted-twice", by(alice, alice), []keys.Signer{alice}, false},
		{"same-signature-under-two-ids", append(by(alice), relabelled(alice, bob)), []keys.Signer{alice}, false},
		{"strangers-only", by(mallory, keystest.New(t, "eve")), nil, false},
		{"stranger-under-a-known-id", append(by(alice), relabelled(mallory, bob)), []keys.Signer{alice}, false},
		{"fido2-form-of-a-plain-key", append(by(alice), by(keystest.NewSK(t, "bob"))...), []keys.Signer{alice}, false},
		{"empty-id", append(by(alice), keys.Entry{Sig: by(bob)[0].Sig}), []keys.Signer{alice}, false},
		{"of-another-document-type", append(by(alice), keystest.Sign(t, "shoal.root.v1", msg, bob)...), []keys.Signer{alice}, false},
		{"of-another-message", append(by(alice), keystest.Sign(t, namespace, []byte("x"), bob)...), []keys.Signer{alice}, false},
		{"good-beside-junk", append(by(alice, carol), junk(bob, "junk"), junk(mallory, ""), relabelled(bob, mallory)), []keys.Signer{alice, carol}, true},
		{"junk-first-spoils-only-its-own", append([]keys.Entry{junk(bob, "")}, by(alice, bob, carol)...), []keys.Signer{alice, carol}, true},
		{"good-among-strangers", many, []keys.Signer{alice, bob}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var want []keys.ID
			for _, s := range tt.signed {
				want = append(want, s.Public().ID())
			}
			got, err := role.Verify(namespace, msg, tt.sigs)
			if tt.ok {
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("signed by %v, %v; want %v", got, err, want)
				}
				return
			}
			var short *keys.ThresholdError
			if !errors.Is(err, keys.ErrThreshold) || !errors.As(err, &short) {
				t.Fatalf("signed by %v, error %v, want a ThresholdError", got, err)
			}
			if short.Have != len(want) || short.Want != 2 || !slices.Equal(short.Signed, want) {
				t.Errorf("%+v, want %v of 2", short, want)
			}
			if want := fmt.Sprintf("%d of 2 required signatures", len(want)); !strings.Contains(err.Error(), want) {
				t.Errorf("error %q, want one with %q", err, want)
			}
			if got != nil {
				t.Errorf("an error, yet signed by %v", got)
			}
		})
	}
}
