package swarm_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"testing"
	"time"

	"shoal/swarm"
)

// dictPeer serves an info dict (BEP 9) as a test wants it.
type dictPeer struct {
	infohash [20]byte
	size     int                    // as it says
	give     func(piece int) []byte // nil is no answer
	leaves   bool                   // when it has answered once
	far      time.Duration          // how long its handshake takes
}

func (p *dictPeer) start(t *testing.T) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
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
	return ln.Addr().String()
}

var askedPiece = regexp.MustCompile(`^\x14\x03d8:msg_typei0e5:piecei(\d+)e`)

func (p *dictPeer) serve(c net.Conn) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 68)); err != nil {
		return
	}
	time.Sleep(p.far)
	extended := func(id byte, payload []byte) {
		b := binary.BigEndian.AppendUint32(nil, uint32(2+len(payload)))
		c.Write(append(append(b, 20, id), payload...))
	}
	_, port, _ := net.SplitHostPort(c.LocalAddr().String())
	hello := append([]byte("\x13BitTorrent protocol\x00\x00\x00\x00\x00\x10\x00\x00"), p.infohash[:]...)
	c.Write(append(hello, fmt.Sprintf("-XX0000-%012s", port)...))
	extended(0, fmt.Appendf(nil, "d1:md11:ut_metadatai3ee13:metadata_sizei%dee", p.size))
	for {
		var head [4]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		b := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		m := askedPiece.FindSubmatch(b)
		if m == nil {
			continue
		}
		piece, _ := strconv.Atoi(string(m[1]))
		data := p.give(piece)
		if data == nil {
			continue
		}
		extended(1, append(fmt.Appendf(nil, "d8:msg_typei1e5:piecei%de10:total_sizei%dee", piece, p.size), data...))
		if p.leaves {
			return
		}
	}
}

// Those that lie about an info dict, or keep it back, do not keep it from who has an
// honest neighbour.
func TestFetchInfoAmongLiars(t *testing.T) {
	const length = 64 << 20 // so that the dict has more than one part
	info, err := swarm.BuildInfo(t.Context(), bytes.NewReader(make([]byte, length)), "acme", length, false)
	if err != nil {
		t.Fatal(err)
	}
	dict := info.Bytes()
	part := func(b []byte) func(int) []byte {
		return func(n int) []byte { return b[min(len(b), n<<14):min(len(b), (n+1)<<14)] }
	}
	nothing := func(int) []byte { return nil }
	only := func(piece int) func(int) []byte {
		return func(n int) []byte {
			if n != piece {
				return nil
			}
			return part(flipped(dict))(n)
		}
	}
	rows := map[string]dictPeer{
		"other-bytes":       {size: len(dict), give: part(flipped(dict))},
		"half-is-wrong":     {size: len(dict), give: only(1)},
		"other-half-is-too": {size: len(dict), give: only(0), leaves: true},
		"wrong-and-is-off":  {size: len(dict), give: only(1), leaves: true},
		"larger":            {size: swarm.MaxInfoSize, give: part(make([]byte, swarm.MaxInfoSize))},
		"larger-and-is-off": {size: swarm.MaxInfoSize, give: part(make([]byte, swarm.MaxInfoSize)), leaves: true},
		"larger-than-any":   {size: 1 << 30, give: nothing},
		"without-a-size":    {size: 0, give: nothing},
		"never-gives":       {size: len(dict), give: nothing},
	}
	for name, liar := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			liar.infohash = info.Ref().Infohash
			honest := dictPeer{infohash: liar.infohash, size: len(dict), give: part(dict), far: 300 * time.Millisecond}
			peers := []string{liar.start(t), liar.start(t), honest.start(t)}
			n := newNode(t, swarm.Config{})
			got, err := n.FetchInfo(withPatience(t), info.Ref(), swarm.FetchOptions{Peers: peers})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), dict) {
				t.Error("it is another dict")
			}
		})
	}
}
