package swarmtest

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"
)

// A Peer speaks just enough of the peer wire protocol (BEP 3) to misbehave in it. It
// claims to have every piece and unchokes everyone.
type Peer struct {
	Addr     string
	Requests atomic.Int64 // that have come

	handshake [68]byte
	bitfield  []byte
	answer    func(index, begin, length uint32) []byte
}

// NewPeer starts a peer that listens on the address listen and shares the torrent
// infohash, which has that many pieces. answer gives the content of a block; nil is no
// answer at all. It ends with the test, which is skipped if the address is not one of
// this machine.
func NewPeer(t testing.TB, listen string, infohash [20]byte, pieces int, answer func(index, begin, length uint32) []byte) *Peer {
	t.Helper()
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		t.Skipf("skipped: a second loopback address is needed: %v", err)
	}
	return ServePeer(t, ln, infohash, pieces, answer)
}

// ServePeer is NewPeer on a listener of the test's, which may speak TLS.
func ServePeer(t testing.TB, ln net.Listener, infohash [20]byte, pieces int, answer func(index, begin, length uint32) []byte) *Peer {
	t.Helper()
	p := &Peer{Addr: ln.Addr().String(), answer: answer}
	copy(p.handshake[:], "\x13BitTorrent protocol")
	copy(p.handshake[28:], infohash[:])
	copy(p.handshake[48:], "-XX0000-"+p.Addr)
	p.bitfield = make([]byte, (pieces+7)/8)
	for i := range pieces {
		p.bitfield[i/8] |= 128 >> (i % 8)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go p.serve(c)
		}
	}()
	return p
}

func (p *Peer) serve(c net.Conn) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 68)); err != nil {
		return
	}
	c.Write(p.handshake[:])
	c.Write(message(5, p.bitfield))
	c.Write(message(1, nil)) // unchoke
	for {
		var length uint32
		if binary.Read(c, binary.BigEndian, &length) != nil || length > 1<<20 {
			return
		}
		m := make([]byte, length)
		if _, err := io.ReadFull(c, m); err != nil {
			return
		}
		if length != 13 || m[0] != 6 {
			continue
		}
		p.Requests.Add(1)
		u := binary.BigEndian.Uint32
		if b := p.answer(u(m[1:]), u(m[5:]), u(m[9:])); b != nil {
			if _, err := c.Write(message(7, append(m[1:9:9], b...))); err != nil {
				return
			}
		}
	}
}

func message(id byte, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(body)))
	return append(append(b, id), body...)
}
