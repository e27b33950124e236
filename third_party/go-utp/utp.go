// Package utp stands in for github.com/anacrolix/go-utp with uTP taken out.
//
// It promises only what github.com/anacrolix/torrent needs in order to build: the
// UDP socket is a plain packet connection, and every attempt to open a uTP stream
// is an error. Shoal speaks TCP alone. See the README beside this file.
package utp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
)

// Default names the uTP implementation in use; there is none.
const Default = "none"

// FirewallCallback decides whether a packet's sender is blocked. It is never called.
type FirewallCallback func(net.Addr) bool

// Option configures a socket. None has an effect.
type Option func(*struct{})

// WithLogger returns an Option that does nothing.
func WithLogger(*slog.Logger) Option { return func(*struct{}) {} }

// Socket is a packet connection that can also carry streams; these cannot.
type Socket interface {
	net.PacketConn
	Accept() (net.Conn, error)
	Addr() net.Addr
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	SetFirewallCallback(FirewallCallback)
}

var errNoUTP = errors.New("uTP is not built in")

type socket struct {
	net.PacketConn
	once sync.Once
	done chan struct{}
}

func (s *socket) Close() error {
	s.once.Do(func() { close(s.done) })
	return s.PacketConn.Close()
}

// Accept blocks until the socket is closed: there are no streams to accept.
func (s *socket) Accept() (net.Conn, error) {
	<-s.done
	return nil, net.ErrClosed
}

func (s *socket) Addr() net.Addr { return s.LocalAddr() }

func (s *socket) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, errNoUTP
}

func (s *socket) SetFirewallCallback(FirewallCallback) {}

// NewSocket opens a packet connection on addr.
func NewSocket(network, addr string, opts ...Option) (Socket, error) {
	pc, err := net.ListenPacket(network, addr)
	if err != nil {
		return nil, err
	}
	return NewSocketFromPacketConn(pc, opts...)
}

// NewSocketFromPacketConn wraps pc, which the socket then owns.
func NewSocketFromPacketConn(pc net.PacketConn, _ ...Option) (Socket, error) {
	return &socket{PacketConn: pc, done: make(chan struct{})}, nil
}
