package swarm

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// maxUnsent is how much may wait in the kernel, of one connection, that has not been put
// on the wire. The kernel would take megabytes; with several connections to share the
// uplink that is seconds, in which a request, or news of a piece, waits behind payload.
// What is on its way and not acknowledged is not counted, so a long path is not slowed
// down.
const maxUnsent = 32 << 10

// tuneSocket keeps the send queue of a connection short, where that is possible.
func tuneSocket(nc net.Conn) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	// Without it, the connection is slower to react, and otherwise fine.
	raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent)
	})
}

// rtt is the least time a round trip to the peer has taken.
func (c *conn) rtt() time.Duration {
	if c == nil {
		return usualRTT
	}
	tcp, ok := c.socket.(*net.TCPConn)
	if !ok {
		return usualRTT
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return usualRTT
	}
	rtt := usualRTT
	raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			rtt = min(time.Duration(info.Min_rtt)*time.Microsecond, maxRTT)
		}
	})
	return rtt
}
