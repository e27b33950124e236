// Package socket has the kernel do for a peer connection what is cheaper there: keep what
// is sent to it short, wake its reader only for what can be used, and measure its path.
//
// Nothing here is needed for a connection to work. What a system does not have is left
// out, and the connection is otherwise fine.
package socket

import "time"

const (
	// MaxUnsent is how many bytes may wait in the kernel, of one connection, that have not
	// been put on the wire. The kernel would take megabytes; with several connections to
	// share the uplink that is seconds, in which a request, or news of a piece, waits behind
	// payload. So it waits behind these and the rest of one block. What is on its way and not
	// acknowledged is not counted, so a long path is not slowed down.
	MaxUnsent = 8 << 10

	// Waking up costs more than reading, and a shaped or slow link brings packet after
	// packet: nobody is woken for less than can be used, up to MostAwaited bytes, which is
	// well below what a receive buffer holds. Less than leastAwaited is not worth a system
	// call.
	MostAwaited  = 32 << 10
	leastAwaited = 4 << 10
)

// The round trip where it cannot be known, and the longest that is believed.
const (
	usualRTT = 100 * time.Millisecond
	maxRTT   = 2 * time.Second
)
