// Package swarm is one BitTorrent node: it serves files, fetches files, and says where
// the bytes came from.
//
// It believes nobody. What [Node.Fetch] leaves behind matches the infohash it was asked
// for and nothing more is promised; the caller, who knows from a signed document what
// the file should be, hashes it before using it. An info dict is only ever given to the
// torrent engine after [OpenInfo] has checked it against the SHA-256 and the infohash a
// signed document names; magnet links are never followed.
//
// # Connections
//
// Every peer connection is accepted and dialled by this package, over TCP, and wrapped
// once. From the wire up:
//
//  1. the gate: connections that have not finished the BitTorrent handshake are bounded,
//     in all and per address, and in time; the one that has been silent longest makes
//     room for a newcomer, so a flood of silent connections keeps nobody out
//  2. fleet TLS (package fleet), in a fleet with a key: both ends show that they are
//     members before either says anything else, so a stranger learns nothing, not even
//     whether a torrent is here; strangers and members have a gate each
//  3. the class (lan, wan, origin) the peer's address gives it, see [Class]
//  4. the limits of that class, which only payload waits for; requests, announcements of
//     pieces and other small messages, which package wire tells apart, never queue behind
//     a limit
//  5. on a node that super seeds (BEP 16, package superseed), what the engine says of its
//     pieces: it claims to have none, and each piece is offered to one peer first
//  6. of a torrent that is fetched, what the peer says of its pieces: the engine hears of a
//     piece from whoever is to be asked for it, which package picker decides
//
// Without a key the fleet is open, and stock clients are welcome: plain and obfuscated (MSE) handshakes are both accepted.
// There is no DHT, no UPnP, no uTP and no WebTorrent; peers come from trackers, from
// announcements on the LAN (BEP 14, package lsd), from peer exchange (BEP 11, unless the
// torrent is private), and from the addresses a fetch was given, which are offered again
// for as long as it runs.
//
// # Files
//
// What is served and what is downloaded lies in files, of which package disk says what is
// promised: nothing that is served is changed, and of what an earlier download left only
// pieces are used that hash correctly.
//
// # What is not promised
//
// The torrent engine may panic on input nobody thought of, in a goroutine of its own,
// where no caller can recover it. A process that uses this package should be one that a
// supervisor restarts, and should keep nothing that must survive only in memory.
package swarm
