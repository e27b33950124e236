// Package manifest decides what may run.
//
// A byte string becomes something to act on in one way only: a [Trust], pinned to
// one fleet by the hash of its first root, opens it in a [Cycle]. What comes out was
// signed to the threshold of the right role, for this fleet, app and channel; it is
// not older than anything accepted before, not out of date, and every field of it is
// inside the bounds of its format. Whatever fails has one code of package fault, and
// changes nothing.
//
// # Documents
//
// Four documents travel, each in an [Envelope] with its signatures: the [Root] names
// the keys, roles and thresholds; the [Manifest] is one release of one channel, whole;
// the [Beacon] is a short-lived online statement of what is current, which can slow a
// rollout down and never install anything; the [Report] is one agent's account of
// itself. The bytes a person reviewed are the bytes that are signed, sent, stored and
// parsed: nothing is ever written out anew or put into a canonical form.
//
// # Order
//
// Manifests of a channel are ordered by (epoch, sequence). The epoch is set by root
// alone, so that everything a thief of a release key signed, the largest sequence
// there is included, is void as soon as the root's keepers raise it.
//
// # Time
//
// Expiry is held against the later of the machine's clock and what trusted documents
// say the time was: a bad clock cannot make an expired document good again. The floor
// is derived from the documents each time and never stored, so that the next document
// corrects a mis-dated one.
//
// # What the caller owes
//
// The package does no I/O, starts no goroutine and reads the time only through
// [Options].Clock. The caller limits its readers to [MaxRoot], [MaxManifest] and the
// other sizes before it buffers, persists what [Trust.Snapshot] returns (files first,
// the [State] last), and asks [Cycle.Authorize] again right before it replaces a file.
package manifest
