// Package fleet keeps strangers out of a fleet's swarm.
//
// A fleet key is a secret that every machine of a fleet holds. From it each of them
// derives the same certificate authority, and with that signs a certificate for a key of
// its own, its leaf, which it keeps beside its state. Both ends of every connection
// present such a certificate, over TLS 1.3, before either says anything else.
//
// It proves membership and nothing besides: whoever holds the key can sign a leaf with
// any name, so it authenticates no particular machine, the publisher's included, and no
// single member can be shut out other than by a new key. What machines run never depends
// on it. It keeps releases confidential, and floods of strangers away from the parts
// that talk to peers.
//
// Membership has no date: certificates are valid whatever a machine's clock says.
//
// # Key files and rotation
//
// A file holds one key or two, each on a line of its own, shoal-fleet-1: and 43
// characters of unpadded base64url; # begins a comment. The first is presented, both are
// accepted, so a key is replaced in three rounds over all machines: append the new one,
// swap the two, remove the old one. Between two rounds, in whatever order the machines
// come to them, everyone understands everyone. Files are read when a process starts.
package fleet
