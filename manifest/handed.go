package manifest

import "shoal/internal/fault"

// FromRoot begins to trust the fleet of one root, of any version, that a person vouches
// for: it is held against its own keys and no chain before it. That serves to open a
// document by hand where the first root is not at hand. [Trust.UpdateRoot] takes the
// roots that follow; a Snapshot of such a Trust is not to be kept, as it has no first
// root to start from again. Codes: those of a bad root.
func FromRoot(env []byte, o Options) (*Trust, error) {
	e, err := parseEnvelope(env, TypeRoot, "root")
	if err != nil {
		return nil, rootRefusal(err)
	}
	r, err := parseRoot(e.Payload, "root")
	if err != nil {
		return nil, rootRefusal(err)
	}
	if r.Version == 1 {
		return pinned(env, e.PayloadHash(), o)
	}
	doc := rootDoc(r.Version)
	if r.Version < 1 || r.ID == nil || r.Prev == nil {
		return nil, rootRefusal(fault.New(fault.RootChain, "%s is neither a first root nor one that names its fleet and the root before it", doc))
	}
	t := newTrust(*r.ID, o)
	r, parsed, err := t.readRoot(e, doc)
	if err != nil {
		return nil, rootRefusal(err)
	}
	t.follow(r, parsed, e.PayloadHash(), env)
	return t, nil
}
