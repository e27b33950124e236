// Package disk is the content of torrents in files: what a node seeds from, and what it
// downloads into.
//
// A file that is seeded is read through one descriptor from where it lies, hashed when it
// is opened; nothing is renamed, changed or written. A download is written in place with
// positioned writes into a file for whose length there was room before the first byte, and
// what an earlier process left there is used only as far as its pieces hash correctly:
// neither name nor size nor a record on the side is believed. No file is memory mapped, so a
// file that shrinks while it is served is an error for the peer that asked and not a fault in
// this process.
package disk
