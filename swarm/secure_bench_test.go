package swarm

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"shoal/swarm/fleet"
	"shoal/swarm/wire"
)

// BenchmarkConn moves what an engine writes, two blocks at a time, from one connection to
// another over loopback, with and without fleet TLS.
func BenchmarkConn(b *testing.B) {
	keys, err := fleet.Generate()
	if err != nil {
		b.Fatal(err)
	}
	for _, row := range []struct {
		name  string
		keyed bool
	}{{"plain", false}, {"tls", true}} {
		b.Run(row.name, func(b *testing.B) {
			var ends [2]*transport
			for i := range ends {
				var m *fleet.Member
				if row.keyed {
					if m, err = keys.Join(""); err != nil {
						b.Fatal(err)
					}
				}
				classes, err := newClassifier(nil)
				if err != nil {
					b.Fatal(err)
				}
				tr, err := newTransport("127.0.0.1:0", m, classes, slog.New(slog.DiscardHandler))
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { tr.close(); close(tr.done); tr.running.Wait() })
				ends[i] = tr
			}
			benchmarkConn(b, ends)
		})
	}
}

func benchmarkConn(b *testing.B, ends [2]*transport) {
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := ends[0].Accept()
		accepted <- c
	}()
	from, err := ends[1].Dial(b.Context(), netip.AddrPortFrom(ends[0].local.Addr(), ends[0].local.Port()).String())
	if err != nil {
		b.Fatal(err)
	}
	to := <-accepted
	if to == nil {
		b.Fatal("nothing was accepted")
	}
	ends[0].greet(to.(*conn).remote) // as the engine does
	from.Write(handshake())
	if _, err := io.ReadFull(to, make([]byte, wire.HandshakeLen)); err != nil {
		b.Fatal(err)
	}
	piece := message(wire.Piece, make([]byte, wire.PieceHeaderLen-1+16<<10)...)
	two := append(append([]byte(nil), piece...), piece...)
	const each = 64              // of two blocks, so that an iteration is 2 MiB
	buf := make([]byte, 128<<10) // as the engine reads
	b.SetBytes(each * int64(len(two)))
	for b.Loop() {
		go func() {
			for range each {
				from.Write(two)
			}
		}()
		for got := 0; got < each*len(two); {
			n, err := to.Read(buf)
			if err != nil {
				b.Fatal(err)
			}
			got += n
		}
	}
}
