package swarm

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"shoal/swarm/fleet"
)

func newTestTransport(t *testing.T) *transport {
	t.Helper()
	return newMemberTransport(t, nil)
}

func newMemberTransport(t *testing.T, m *fleet.Member) *transport {
	t.Helper()
	classes, err := newClassifier(nil)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := newTransport("127.0.0.1:0", m, classes, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.close(); close(tr.done); tr.running.Wait() })
	return tr
}

// newMember is a member of a fleet of its own.
func newMember(t *testing.T) *fleet.Member {
	t.Helper()
	keys, err := fleet.Generate()
	if err != nil {
		t.Fatal(err)
	}
	m, err := keys.Join("")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func dial(t *testing.T, tr *transport) (client net.Conn, accepted *conn) {
	t.Helper()
	client, err := net.Dial("tcp", tr.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	c, err := tr.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, c.(*conn)
}

func TestGateMakesRoom(t *testing.T) {
	tr := newTestTransport(t)
	greeted, c := dial(t, tr)
	tr.greet(c.remote)
	var silent []net.Conn
	for range maxWaitingFromAddr + 5 {
		client, _ := dial(t, tr)
		silent = append(silent, client)
	}
	for i, client := range silent[:5] {
		client.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := client.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("connection %d, silent the longest, was kept: %v", i, err)
		}
	}
	tr.mu.Lock()
	waiting := len(tr.waiting)
	kept := len(tr.conns)
	tr.mu.Unlock()
	if waiting != maxWaitingFromAddr || kept != maxWaitingFromAddr+1 {
		t.Errorf("%d connections wait and %d are kept, want %d and one more", waiting, kept, maxWaitingFromAddr)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Errorf("a peer that had greeted lost its place: %v", err)
	}
	if _, err := io.ReadFull(greeted, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func TestWhoIsAtTheOtherEnd(t *testing.T) {
	keys, err := fleet.Generate()
	if err != nil {
		t.Fatal(err)
	}
	var members [2]*fleet.Member
	var ends [2]*transport
	for i := range ends {
		if members[i], err = keys.Join(""); err != nil {
			t.Fatal(err)
		}
		ends[i] = newMemberTransport(t, members[i])
	}
	accepted := make(chan *conn, 1)
	go func() {
		nc, _ := ends[0].Accept()
		c, _ := nc.(*conn)
		accepted <- c
	}()
	nc, err := ends[1].Dial(t.Context(), ends[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := <-accepted
	if c == nil {
		t.Fatal("nothing was accepted")
	}
	if got := ends[0].find(c.remote, false).member; got != members[1].ID() {
		t.Errorf("who dialled is taken for %s, and is %s", got, members[1].ID())
	}
	if got := ends[1].find(nc.(*conn).remote, true).member; got != members[0].ID() {
		t.Errorf("who was dialled is taken for %s, and is %s", got, members[0].ID())
	}
	for i, tr := range ends {
		if n := tr.countMembers(); n != 1 {
			t.Errorf("end %d counts %d members", i, n)
		}
	}
	if len(ends[0].waiting) != 0 || len(ends[0].members) != 1 {
		t.Errorf("%d wait to be known, %d to greet", len(ends[0].waiting), len(ends[0].members))
	}
	// What the engine writes at once goes out at once, and whole.
	big := make([]byte, 5*batch+13)
	for i := range big {
		big[i] = byte(i >> 8)
	}
	go func() {
		nc.Write([]byte("small"))
		nc.Write(big)
	}()
	got := make([]byte, 5+len(big))
	if _, err := io.ReadFull(c, got); err != nil || string(got[:5]) != "small" || !bytes.Equal(got[5:], big) {
		t.Errorf("what arrives is something else: %v", err)
	}
	nc.Close()
	if n, err := c.Read(got); err == nil {
		t.Errorf("read %d bytes from a closed connection", n)
	}
}

// countingConn counts what reaches the socket.
type countingConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// A block and its header are more than one record, and must be one segment's worth of
// writing all the same.
func TestBlocksAreWrittenWhole(t *testing.T) {
	tr := newMemberTransport(t, newMember(t))
	ours, theirs := net.Pipe()
	count := &countingConn{Conn: ours}
	c := &secured{tls.Client(&batcher{Conn: count}, tr.dialling), nil}
	c.wire = c.NetConn().(*batcher)
	peer := tls.Server(theirs, tr.accepting)
	read := make(chan int64, 1)
	go func() {
		n, _ := io.Copy(io.Discard, peer)
		read <- n
	}()
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ size, writes int64 }{{9, 1}, {record, 1}, {record + 13, 1}, {2 * (record + 13), 1}, {batch + 1, 2}} {
		before := count.writes.Load()
		if n, err := c.Write(make([]byte, row.size)); n != int(row.size) || err != nil {
			t.Fatalf("writing %d bytes: %d, %v", row.size, n, err)
		}
		if got := count.writes.Load() - before; got != row.writes {
			t.Errorf("%d bytes went out in %d writes, want %d", row.size, got, row.writes)
		}
	}
	c.Close()
	if n := <-read; n != 9+record+record+13+2*(record+13)+batch+1 {
		t.Errorf("%d bytes arrived", n)
	}
}

func TestEngineSeesNoZones(t *testing.T) {
	tr := newTestTransport(t)
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := tr.wrap(ours, netip.MustParseAddrPort("[fe80::1%eth0]:7801"), false)
	defer c.Close()
	if got := c.RemoteAddr().String(); got != "[fe80::1]:7801" {
		t.Errorf("the engine sees %s", got)
	}
}

// flaky is a listener that fails, and is closed in the end.
type flaky struct {
	net.Listener
	errs  []error
	calls atomic.Int64
}

func (f *flaky) Accept() (net.Conn, error) {
	n := int(f.calls.Add(1))
	if n > len(f.errs) {
		return nil, net.ErrClosed
	}
	return nil, f.errs[n-1]
}

func TestAcceptNeverSpins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &flaky{errs: []error{syscall.EMFILE, syscall.ECONNABORTED, syscall.ENFILE}}
		tr := &transport{ln: f, done: make(chan struct{}), log: slog.New(slog.DiscardHandler)}
		returned := make(chan error, 1)
		go func() {
			_, err := tr.Accept()
			returned <- err
		}()
		synctest.Wait()
		if n := f.calls.Load(); n != 1 {
			t.Errorf("accepted %d times without a pause", n)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := f.calls.Load(); len(returned) != 0 || n != 4 {
			t.Errorf("accepted %d times, want once for each error and the end; returned %d", n, len(returned))
		}
		close(tr.done)
		if err := <-returned; !errors.Is(err, net.ErrClosed) {
			t.Errorf("at the end: %v", err)
		}
	})
}

func TestDialRefuses(t *testing.T) {
	tr := newTestTransport(t)
	for _, addr := range []string{"0.0.0.0:80", "224.0.0.1:80", "127.0.0.1:0", "[::]:80", "localhost:80", "", tr.Addr().String()} {
		if c, err := tr.Dial(t.Context(), addr); err == nil {
			c.Close()
			t.Errorf("dialled %q", addr)
		}
	}
}

func TestTransportClose(t *testing.T) {
	tr := newTestTransport(t)
	client, _ := dial(t, tr)
	tr.close()
	client.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := client.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("an accepted connection is still open: %v", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := tr.Dial(t.Context(), ln.Addr().String()); err == nil {
		t.Error("dialled after the end")
	}
	if len(tr.conns)+len(tr.accepted)+len(tr.waiting) != 0 {
		t.Error("closed connections are remembered")
	}
}
