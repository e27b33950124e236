package checker

import (
	"io"
	"os"
	"path/filepath"

	"shoal/agent/state"
	"shoal/internal/fault"
	"shoal/manifest"
)

const anchorFile = "anchor.json"

// Init is what a checker's state is made of.
type Init struct {
	Dir         string           // made if it is not there
	Root        string           // file with the envelope of root version 1
	Pin         *manifest.Digest // what its payload must hash to; nil takes it as it is
	MinRoot     int64            // least root version to act under
	MinSequence manifest.Order   // least order of every channel that is asked for
}

// Made is what Do made.
type Made struct {
	Fleet       manifest.FleetID `json:"fleet"`
	Name        string           `json:"name"` // for display, as root says it
	State       string           `json:"state"`
	Already     bool             `json:"already"` // it was there, and was left as it is
	MinRoot     int64            `json:"min_root"`
	MinSequence string           `json:"min_sequence"` // EPOCH.SEQUENCE, or empty
}

// Do pins the root. It looks at the root's form and signatures, not at its expiry. When
// it is not a first root, or not signed by its own threshold, or another one than the
// pin, nothing is written. A state that is there already is left as it is.
func (i Init) Do() (*Made, error) {
	env, err := readRoot(i.Root)
	if err != nil {
		return nil, err
	}
	parsed, err := manifest.ParseEnvelope(env, manifest.TypeRoot)
	if err != nil {
		return nil, err
	}
	pin := parsed.PayloadHash()
	if i.Pin != nil {
		pin = *i.Pin
	}
	trust, _, err := manifest.Pin(env, pin, manifest.Options{})
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(i.Dir)
	if err != nil {
		return nil, fault.New(fault.Usage, "state directory %q: %w", i.Dir, err)
	}
	store, err := state.Open(dir, filepath.Join(dir, anchorFile))
	if err != nil {
		return nil, err
	}
	defer store.Close()
	m, err := store.Read()
	if err != nil {
		return nil, err
	}
	made := &Made{Fleet: manifest.FleetID(pin), Name: trust.Root().Fleet, State: dir}
	if m.Known {
		if err := reusable(m, pin, dir); err != nil {
			return nil, err
		}
		made.Already = true
		made.floors(m.Local.Checker)
		return made, nil
	}
	if trust, err = afterLoss(m.Snapshot, env, pin, dir); err != nil {
		return nil, err
	}
	local := state.Local{Checker: &state.Pin{Repo: made.Fleet, MinRoot: i.MinRoot}}
	if i.MinSequence != (manifest.Order{}) {
		local.Checker.MinSequence = map[string]state.Order{state.AnyChannel: state.Order(i.MinSequence)}
	}
	made.floors(local.Checker)
	return made, store.Save(trust.Snapshot(), local)
}

func (m *Made) floors(pin *state.Pin) {
	if pin == nil {
		return
	}
	m.MinRoot = pin.MinRoot
	if least, ok := pin.MinSequence[state.AnyChannel]; ok {
		m.MinSequence = manifest.Order(least).String()
	}
}

// afterLoss pins the root in a directory without a state. Where one was lost, the
// documents it left still say how far this directory had come: making it anew must not
// be a way back.
func afterLoss(left manifest.Snapshot, env []byte, pin manifest.Digest, dir string) (*manifest.Trust, error) {
	if len(left.Roots) == 0 {
		left.Roots = [][]byte{nil}
	} else if e, err := manifest.ParseEnvelope(left.Roots[0], manifest.TypeRoot); err == nil && e.PayloadHash() != pin {
		return nil, otherFleet(e.PayloadHash(), pin, dir)
	}
	left.Roots[0] = env
	left.State = manifest.State{Repo: manifest.FleetID(pin)}
	trust, _, err := manifest.Load(left, manifest.Options{})
	return trust, err
}

// reusable refuses a state directory that is something else already.
func reusable(m *state.Memory, pin manifest.Digest, dir string) error {
	if have := manifest.Digest(m.Snapshot.State.Repo); have != pin {
		return otherFleet(have, pin, dir)
	}
	if m.Local.Checker == nil {
		return fault.New(fault.Usage, "%s is the state of an agent that has joined", dir).
			Do("choose another --state DIR for a checker")
	}
	return nil
}

func otherFleet(have, pin manifest.Digest, dir string) error {
	return fault.New(fault.PinMismatch, "%s holds the state of another fleet", dir).
		Line("Pinned there: %s", have.Prefixed()).
		Line("This root:    %s", pin.Prefixed()).
		Line("Nothing was changed.").
		Do("choose another --state DIR").
		Fact("pin", have.Prefixed()).Fact("found", pin.Prefixed())
}

func readRoot(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, manifest.MaxRoot+1))
	if err != nil {
		return nil, unreadable(err)
	}
	return b, nil // one byte too many is what makes it too large
}

func unreadable(err error) error {
	return fault.New(fault.IO, "reading the root: %w", err).Do("--root FILE names the envelope of root version 1")
}
