// Package webrtc stands in for github.com/pion/webrtc/v4 with WebRTC taken out.
//
// It promises only what github.com/anacrolix/torrent needs in order to build: there is no
// way to make a connection, and so nothing else here is ever reached. See the README beside
// this file.
package webrtc

import (
	"errors"

	"github.com/pion/datachannel"
)

// errNone is what every attempt ends with.
var errNone = errors.New("webrtc is not built in")

// SettingEngine configures nothing.
type SettingEngine struct{ LoggerFactory any }

// DetachDataChannels does nothing.
func (*SettingEngine) DetachDataChannels() {}

// API makes no connections.
type API struct{}

// NewAPI returns an API.
func NewAPI(...func(*API)) *API { return &API{} }

// WithSettingEngine returns an option that does nothing.
func WithSettingEngine(SettingEngine) func(*API) { return func(*API) {} }

// NewPeerConnection always fails.
func (*API) NewPeerConnection(Configuration) (*PeerConnection, error) { return nil, errNone }

// GatheringCompletePromise is done at once.
func GatheringCompletePromise(*PeerConnection) <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}

// What is configured and reported. Of a description only its form on the wire is kept.
type (
	Configuration struct{ ICEServers []ICEServer }
	ICEServer     struct {
		URLs           []string
		Username       string
		Credential     any
		CredentialType int
	}
	SessionDescription struct {
		Type string `json:"type"`
		SDP  string `json:"sdp"`
	}
	StatsReport  map[string]any
	ICECandidate struct {
		Address string
		Port    uint16
	}
	ICECandidatePair struct{ Local, Remote *ICECandidate }
)

func (*ICECandidate) String() string { return "" }

// PeerConnectionState is one of none.
type PeerConnectionState int

func (PeerConnectionState) String() string { return "" }

// PeerConnection is what cannot be made.
type PeerConnection struct{}

func (*PeerConnection) Close() error                                      { return nil }
func (*PeerConnection) OnConnectionStateChange(func(PeerConnectionState)) {}
func (*PeerConnection) OnDataChannel(func(*DataChannel))                  {}
func (*PeerConnection) SetLocalDescription(SessionDescription) error      { return errNone }
func (*PeerConnection) SetRemoteDescription(SessionDescription) error     { return errNone }
func (*PeerConnection) LocalDescription() *SessionDescription             { return &SessionDescription{} }
func (*PeerConnection) CreateOffer(any) (SessionDescription, error) {
	return SessionDescription{}, errNone
}
func (*PeerConnection) CreateAnswer(any) (SessionDescription, error) {
	return SessionDescription{}, errNone
}
func (*PeerConnection) CreateDataChannel(string, any) (*DataChannel, error) { return nil, errNone }
func (*PeerConnection) GetStats() StatsReport                               { return nil }
func (*PeerConnection) SCTP() *SCTPTransport                                { return nil }

// The transports of a connection lead nowhere.
type (
	SCTPTransport struct{}
	DTLSTransport struct{}
	ICETransport  struct{}
)

func (*SCTPTransport) Transport() *DTLSTransport                           { return nil }
func (*DTLSTransport) ICETransport() *ICETransport                         { return nil }
func (*ICETransport) GetSelectedCandidatePair() (*ICECandidatePair, error) { return nil, errNone }

// DataChannel is what cannot be made either.
type DataChannel struct{}

func (*DataChannel) Close() error                                 { return nil }
func (*DataChannel) OnOpen(func())                                {}
func (*DataChannel) OnClose(func())                               {}
func (*DataChannel) Detach() (datachannel.ReadWriteCloser, error) { return nil, errNone }
