package keys

import (
	"encoding/hex"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/testdata"
)

// A signature made by a real FIDO2 token, published with x/crypto.
func TestHardwareTokenSignature(t *testing.T) {
	found := false
	for _, d := range testdata.SKData {
		pub, err := ParsePublicKey(string(d.PubKey))
		if err != nil {
			continue // the ECDSA one
		}
		found = true
		signed, answer := unhex(t, d.HexData), unhex(t, d.HexSignature)
		var field struct{ Signature []byte }
		if err := ssh.Unmarshal(answer, &field); err != nil {
			t.Fatal(err)
		}
		raw, err := parseRaw(pub, field.Signature)
		if err != nil {
			t.Fatal(err)
		}
		if err := pub.verify(signed, raw); err != nil {
			t.Error(err)
		}
		signed[0] ^= 1
		if err := pub.verify(signed, raw); err == nil {
			t.Error("accepted over other bytes")
		}
	}
	if !found {
		t.Fatal("x/crypto has no ed25519 token signature any more")
	}
}

func unhex(t *testing.T, b []byte) []byte {
	t.Helper()
	out, err := hex.DecodeString(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return out
}
