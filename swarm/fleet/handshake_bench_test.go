package fleet

import (
	"crypto/tls"
	"net"
	"testing"
)

// BenchmarkHandshake is what two members pay for a connection between them, both ends.
func BenchmarkHandshake(b *testing.B) {
	keys, err := Generate()
	if err != nil {
		b.Fatal(err)
	}
	one, err := keys.Join("")
	if err != nil {
		b.Fatal(err)
	}
	other, err := keys.Join("")
	if err != nil {
		b.Fatal(err)
	}
	dialling, accepting := one.Dialling(), other.Accepting()
	for b.Loop() {
		ours, theirs := net.Pipe()
		failed := make(chan error, 1)
		go func() { failed <- tls.Server(theirs, accepting).Handshake() }()
		if err := tls.Client(ours, dialling).Handshake(); err != nil {
			b.Fatal(err)
		}
		if err := <-failed; err != nil {
			b.Fatal(err)
		}
		ours.Close()
	}
}
