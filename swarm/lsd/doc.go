// Package lsd finds the peers on this machine's own networks, with no server and no route
// to anywhere: local service discovery by multicast (BEP 14).
//
// It announces what a node has and wants on every chosen interface, in IPv4 and IPv6, each
// from that interface's own address, and follows interfaces that come and go. What it
// hears is an address to try and nothing more: always that from which the datagram came,
// with the port it names. From strangers it has to be on the network of the interface
// that brought it, so that nobody can send a fleet to a host elsewhere.
//
// In a fleet with a key every datagram has one header more, with the sender's address and
// a MAC; without a good one, or from another address, it is dropped. There are no times in
// it, since clocks lie: a datagram sent again repeats a true address. The infohashes in it
// mean nothing to strangers.
//
// Memory and work are bounded, whatever is sent, and an address that floods keeps no other
// one from being heard. An IPv6 address that is link-local is neither announced nor heard:
// it is no address without the name of an interface.
package lsd
