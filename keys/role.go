package keys

import (
	"errors"
	"fmt"
)

const (
	maxRoleKeys  = 64
	maxThreshold = 32 // as many signatures as an envelope carries
)

// ErrThreshold is matched by every [ThresholdError].
var ErrThreshold = errors.New("too few valid signatures")

// ThresholdError says by how much a role was not met.
type ThresholdError struct {
	Have, Want int
	Signed     []ID // the keys whose signatures are good, in the role's order
}

func (e *ThresholdError) Error() string {
	return fmt.Sprintf("%d of %d required signatures", e.Have, e.Want)
}

// Is reports whether target is [ErrThreshold].
func (e *ThresholdError) Is(target error) bool { return target == ErrThreshold }

// Role is t-of-n: Threshold of the Keys must sign.
type Role struct {
	Threshold int
	Keys      []PublicKey
}

// Entry is a signature and the key it says it is from.
type Entry struct {
	KeyID ID
	Sig   Signature
}

// Check reports what is wrong with the role itself: it must have at most 64 keys, no
// two of them with one curve point, and 1 <= threshold <= min(keys, 32).
func (r Role) Check() error {
	if len(r.Keys) > maxRoleKeys {
		return fmt.Errorf("role has %d keys, at most %d are allowed", len(r.Keys), maxRoleKeys)
	}
	byPoint := make(map[[32]byte]ID, len(r.Keys))
	for _, k := range r.Keys {
		if k.algo == "" {
			return errors.New("role has an empty key")
		}
		if first, twice := byPoint[k.Point()]; twice {
			return fmt.Errorf("role has one key twice: %s and %s", first, k.ID())
		}
		byPoint[k.Point()] = k.ID()
	}
	if most := min(len(r.Keys), maxThreshold); r.Threshold < 1 || r.Threshold > most {
		return fmt.Errorf("role has threshold %d, must be 1 to %d", r.Threshold, most)
	}
	return nil
}

// Verify returns which of the role's keys signed msg in namespace, in the role's order.
// Entries that name no key of the role or do not verify are skipped, so that nobody can
// spoil the good ones by adding to them; of several entries for one key the first is
// tried, the others are ignored. With fewer keys than the threshold the error is a
// [*ThresholdError]; a role that fails [Role.Check] verifies nothing.
func (r Role) Verify(namespace string, msg []byte, sigs []Entry) ([]ID, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	offered := make(map[ID]Signature, len(sigs))
	for _, e := range sigs {
		if _, twice := offered[e.KeyID]; !twice {
			offered[e.KeyID] = e.Sig
		}
	}
	var signed []ID
	points := make(map[[32]byte]bool, len(r.Keys))
	for _, k := range r.Keys {
		id := k.ID()
		sig, ok := offered[id]
		if !ok || Verify(k, namespace, msg, sig) != nil {
			continue
		}
		signed = append(signed, id)
		points[k.Point()] = true
	}
	if len(points) < r.Threshold {
		return nil, &ThresholdError{Have: len(points), Want: r.Threshold, Signed: signed}
	}
	return signed, nil
}
