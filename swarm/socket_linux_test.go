package swarm

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"shoal/swarm/socket"
)

func TestSendQueueIsShort(t *testing.T) {
	tr := newTestTransport(t)
	_, accepted := dial(t, tr)
	other := newTestTransport(t)
	dialled, err := tr.Dial(t.Context(), other.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Close()
	for name, c := range map[string]net.Conn{"accepted": accepted.socket, "dialled": dialled.(*conn).socket} {
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			if n, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT); err != nil || n != socket.MaxUnsent {
				t.Errorf("%s: %d bytes may wait to be sent, %v; want %d", name, n, err, socket.MaxUnsent)
			}
		})
	}
}
