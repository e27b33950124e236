// Package datachannel stands in for the module of that name, of which only a type is
// needed: see ../webrtc/README.md.
package datachannel

import "io"

// ReadWriteCloser is a data channel of WebRTC. There is none.
type ReadWriteCloser interface {
	io.ReadWriteCloser
}
