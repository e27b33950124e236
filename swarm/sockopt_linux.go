package swarm

import (
	"net"

	"golang.org/x/sys/unix"
)

// unsentBytes is how much a socket may hold that has not been sent yet. Left alone, the
// kernel lets a connection queue megabytes in front of our own next request, and the
// slowest peers of a crowd finish that much later.
const unsentBytes = 32 << 10

// tune sets options of a peer's socket. They are hints; errors do not matter.
func tune(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
	})
}
