// Package nettest shows what machines do that have nothing but each other: real shoal
// processes in network namespaces, on links of a real speed, without a route to anywhere
// else; and what clients that know nothing of Shoal fetch there. It has tests alone; they
// need root, and `make test-net` runs them.
//
// A story makes a [lan] with newLAN, plugs machines in, and has each run shoal.
package nettest
