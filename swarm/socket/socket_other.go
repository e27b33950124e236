//go:build !linux

package socket

import (
	"net"
	"time"
)

// Tune keeps the send queue of a connection at MaxUnsent, where that is possible.
func Tune(net.Conn) {}

// RTT is the least time a round trip to the other end has taken, 2 s at most; 100 ms where
// that cannot be known.
func RTT(net.Conn) time.Duration { return min(usualRTT, maxRTT) }
