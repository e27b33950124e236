//go:build !linux

package swarm

import (
	"net"
	"time"
)

// tuneSocket keeps the send queue of a connection short, where that is possible.
func tuneSocket(net.Conn) {}

// rtt cannot be known here.
func (c *conn) rtt() time.Duration { return usualRTT }
