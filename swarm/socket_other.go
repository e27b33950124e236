//go:build !linux

package swarm

import "net"

// tuneSocket keeps the send queue of a connection short, where that is possible.
func tuneSocket(net.Conn) {}
