package swarm

import (
	"encoding/binary"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shoal/swarm/socket"
	"shoal/swarm/wire"
)

// awaited is how many bytes the kernel waits for before it wakes the reader of c.
func awaited(t *testing.T, c *conn) int {
	t.Helper()
	raw, err := c.socket.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	raw.Control(func(fd uintptr) { n, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT) })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// soon waits until cond holds.
func soon(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for late := time.After(time.Minute); !cond(); {
		select {
		case <-time.After(time.Millisecond):
		case <-late:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// A reader that can do nothing with less is not woken before the rest of a message is
// there, and is woken for any byte between two messages.
func TestReaderIsWokenForWhatItCanUse(t *testing.T) {
	m := newMember(t)
	for _, row := range []struct {
		name     string
		from, to func() *transport
	}{
		{"open", func() *transport { return newTestTransport(t) }, func() *transport { return newTestTransport(t) }},
		{"fleet", func() *transport { return newMemberTransport(t, m) }, func() *transport { return newMemberTransport(t, m) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			to := row.to()
			accepted := make(chan net.Conn, 1)
			go func() {
				if c, err := to.Accept(); err == nil {
					accepted <- c
				}
			}()
			peer, err := row.from().Dial(t.Context(), to.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			var c *conn
			select {
			case nc := <-accepted:
				c = nc.(*conn)
			case <-time.After(time.Minute):
				t.Fatal("nobody was accepted")
			}
			defer c.Close()

			const payload = 64 << 10
			piece := make([]byte, 4+wire.PieceHeaderLen+payload)
			binary.BigEndian.PutUint32(piece, wire.PieceHeaderLen+payload)
			piece[4] = wire.Piece
			hello := append([]byte(wire.Protocol), make([]byte, wire.HandshakeLen-len(wire.Protocol))...)
			have := []byte{0, 0, 0, 5, wire.Have, 0, 0, 0, 1}

			// What is under the layer that would wait for whole messages.
			write := peer.(*conn).Conn.Write
			read := make(chan int, 1<<10)
			go func() {
				defer close(read)
				buf := make([]byte, 128<<10)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					read <- n
				}
			}()
			got := 0
			until := func(n int) {
				t.Helper()
				for late := time.After(time.Minute); got < n; {
					select {
					case m := <-read:
						got += m
					case <-late:
						t.Fatalf("%d bytes arrived, want %d", got, n)
					}
				}
			}
			send := func(b []byte) {
				t.Helper()
				if _, err := write(b); err != nil {
					t.Fatal(err)
				}
			}
			send(hello)
			until(len(hello))
			const begun = 20 << 10 // of the message
			send(piece[:begun])
			until(len(hello) + begun)
			soon(t, "the reader to wait for much", func() bool { return awaited(t, c) == socket.MostAwaited })
			send(piece[begun:])
			until(len(hello) + len(piece))
			send(have) // which is short
			until(len(hello) + len(piece) + len(have))
			if n := awaited(t, c); n != 1 {
				t.Errorf("between two messages it waits for %d bytes", n)
			}
			// The end of a connection is seen in the middle of a message.
			send(piece[:begun])
			until(len(hello) + len(piece) + len(have) + begun)
			soon(t, "the reader to wait for much again", func() bool { return awaited(t, c) == socket.MostAwaited })
			peer.Close()
			select {
			case _, open := <-read:
				if open {
					t.Error("there was something to read")
				}
			case <-time.After(time.Minute):
				t.Error("the end was not seen")
			}
		})
	}
}
