package gate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// served is a server behind a gate. A request for /wait is answered when release is
// closed.
type served struct {
	t       *testing.T
	addr    string
	waiting chan struct{}
	release chan struct{}
}

func serve(t *testing.T, most, mostFrom int) *served {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, addr: ln.Addr().String(), waiting: make(chan struct{}, 100), release: make(chan struct{})}
	g := New(ln, most, mostFrom)
	srv := &http.Server{ConnContext: g.ConnContext, Handler: g.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			s.waiting <- struct{}{}
			<-s.release
		}
		io.WriteString(w, "ok")
	}))}
	go srv.Serve(g)
	t.Cleanup(func() { srv.Close() })
	return s
}

// client is one connection.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

// dial connects from a loopback address, or skips where there is only one.
func (s *served) dial(from string) *client {
	s.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", s.addr)
	if err != nil {
		s.t.Skipf("skipped: a second loopback address is needed: %v", err)
	}
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{s.t, c, bufio.NewReader(c)}
}

func (c *client) ask(path string) { fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path) }

// answered reads an answer, or reports that the connection has ended.
func (c *client) answered() bool {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, nil)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Error("nothing happens on a connection")
	}
	if err != nil {
		return false
	}
	io.Copy(io.Discard, res.Body)
	return res.StatusCode == http.StatusOK
}

func (c *client) works() bool { c.ask("/"); return c.answered() }

func TestOneAddressTakesNobodyElsesPlace(t *testing.T) {
	s := serve(t, 10, 4)
	other := s.dial("127.0.0.2")
	if !other.works() {
		t.Fatal("the first client gets no answer")
	}
	var many []*client
	for range 12 {
		many = append(many, s.dial("127.0.0.1"))
	}
	if !many[11].works() {
		t.Error("the newest of many gets no answer")
	}
	for i, c := range many[:8] {
		if c.works() {
			t.Errorf("the address has more than its share: connection %d is there", i)
		}
	}
	if !other.works() {
		t.Error("another address lost its connection to them")
	}
}

func TestWhoIsBeingAnsweredStays(t *testing.T) {
	s := serve(t, 3, 2)
	var busy []*client
	for _, from := range []string{"127.0.0.1", "127.0.0.1", "127.0.0.2"} {
		c := s.dial(from)
		c.ask("/wait")
		<-s.waiting
		busy = append(busy, c)
	}
	for _, from := range []string{"127.0.0.1", "127.0.0.3"} { // no share of its own left; nothing left
		if s.dial(from).works() {
			t.Errorf("from %s there is room for one more", from)
		}
	}
	close(s.release)
	for i, c := range busy {
		if !c.answered() {
			t.Errorf("connection %d was ended while it was answered", i)
		}
	}
	if !s.dial("127.0.0.3").works() {
		t.Error("there is no room although all wait")
	}
	// They were answered at once, so whoever has waited longest now may be any of them.
	left := 0
	for _, c := range busy {
		if c.works() {
			left++
		}
	}
	if left != 2 {
		t.Errorf("%d of 3 are still there, want 2", left)
	}
}

// Hundreds that send a request letter by letter do not keep anyone out.
func TestSlowRequestsMakeRoom(t *testing.T) {
	s := serve(t, 50, 20)
	var slow []*client
	for i := range 300 {
		c := s.dial(fmt.Sprintf("127.0.0.%d", 2+i%10))
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "[:1+i%30])
		slow = append(slow, c)
	}
	c := s.dial("127.0.0.1")
	for range 2 {
		if !c.works() {
			t.Error("slow clients keep others out")
		}
	}
	for _, c := range slow[:250] {
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Fatal("a slow client is kept beyond the bound")
		}
	}
}

func TestSource(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1:80":           "192.0.2.1",
		"[::ffff:192.0.2.1]:80":  "192.0.2.1",
		"[2001:db8::1:2:3:4]:80": "2001:db8::",
		"[fe80::1%eth0]:80":      "fe80::",
		"@":                      "invalid IP",
		"":                       "invalid IP",
	} {
		if got := Source(addr).String(); got != want {
			t.Errorf("%q counts as %s, want %s", addr, got, want)
		}
	}
}
