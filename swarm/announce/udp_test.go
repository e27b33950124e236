package announce

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"
)

// A UDP tracker of BEP 15, for one announce, that knows one peer.
func TestOverUDP(t *testing.T) {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	s := Status{Infohash: [20]byte{1}, PeerID: [20]byte{2}, Port: 7801, Left: 5}
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			action, transaction := binary.BigEndian.Uint32(b[8:]), b[12:16]
			switch {
			case action == 0 && n >= 16:
				pc.WriteTo(append(append([]byte{0, 0, 0, 0}, transaction...), "connectd"...), from)
			case action == 1 && n >= 98 && string(b[:8]) == "connectd" && [20]byte(b[16:36]) == s.Infohash && [20]byte(b[36:56]) == s.PeerID &&
				binary.BigEndian.Uint32(b[80:]) == 2 && binary.BigEndian.Uint16(b[96:]) == 7801:
				reply := append([]byte{0, 0, 0, 1}, transaction...)
				reply = append(reply, 0, 0, 2, 0x58, 0, 0, 0, 1, 0, 0, 0, 1, 127, 0, 0, 1, 0, 80)
				pc.WriteTo(reply, from)
			default:
				pc.WriteTo(append(append([]byte{0, 0, 0, 3}, transaction...), "wrong"...), from)
			}
		}
	}()
	c := New(Config{})
	defer c.Close(0)
	r, err := c.send(t.Context(), "udp://"+pc.LocalAddr().String(), s, eventStarted)
	if err != nil || r.interval != 10*time.Minute || len(r.peers) != 1 || r.peers[0].String() != "127.0.0.1:80" {
		t.Errorf("got %+v, %v", r, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.send(ctx, "udp://"+pc.LocalAddr().String(), s, eventStarted); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v after the end", err)
	}
}
