package keys

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
)

// smallOrderY are the y coordinates of the eight points whose order divides 8, little
// endian, without the sign of x: order 4, 1, 2 and twice 8. crypto/ed25519 takes such a
// point as a public key, and under the neutral one it accepts the same signature for
// every message.
var smallOrderY = [...]string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
}

// checkPoint refuses the fourteen encodings of the points of small order, and every
// encoding with y >= 2^255-19, so that one point has one encoding and comparing bytes
// compares points.
func checkPoint(p [ed25519.PublicKeySize]byte) error {
	p[31] &= 0x7f // the sign of x
	if !canonicalY(p) {
		return errors.New("public key is not in canonical form")
	}
	y := hex.EncodeToString(p[:])
	for _, small := range smallOrderY {
		if y == small {
			return errors.New("public key is a point of small order, under which signatures can be forged")
		}
	}
	return nil
}

func canonicalY(y [32]byte) bool {
	if y[0] < 0xed || y[31] != 0x7f {
		return true
	}
	for _, b := range y[1:31] {
		if b != 0xff {
			return true
		}
	}
	return false
}
