package socket

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Tune keeps the send queue of a connection at MaxUnsent, where that is possible.
func Tune(nc net.Conn) {
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
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, MaxUnsent)
	})
}

// RTT is the least time a round trip to the other end has taken, 2 s at most; 100 ms where
// that cannot be known.
func RTT(nc net.Conn) time.Duration {
	tcp, ok := nc.(*net.TCPConn)
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
