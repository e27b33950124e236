package lsd

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const (
	maxDatagram = 1400 // bytes; BEP 14 asks for no more
	maxCookie   = 64   // bytes of a cookie that can be ours

	// maxListed is how many infohashes we put in a datagram. With all that is around them
	// it fits the smallest packet every IPv6 network carries (1280).
	maxListed = 18

	firstLine    = "BT-SEARCH * HTTP/1.1"
	memberHeader = "Shoal-Member"
)

// A datagram is one announcement.
type datagram struct {
	port   uint16     // where the sender accepts peers
	list   [][20]byte // its torrents; in a fleet with a key by their names there
	cookie string     // by which a sender knows its own
	member string     // the value of the header that a fleet with a key adds
}

var errForm = errors.New("not an announcement of BEP 14")

// parse reads a datagram. What comes after the headers, and headers it does not know, do
// not matter.
func parse(b []byte) (*datagram, error) {
	if len(b) > maxDatagram {
		return nil, fmt.Errorf("%w: more than %d bytes", errForm, maxDatagram)
	}
	head, _, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		return nil, fmt.Errorf("%w: the headers do not end", errForm)
	}
	lines := strings.Split(string(head), "\r\n")
	if lines[0] != firstLine {
		return nil, fmt.Errorf("%w: it begins with %.40q", errForm, lines[0])
	}
	d := new(datagram)
	seen := make(map[string]bool)
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("%w: header %.40q", errForm, line)
		}
		name, value = strings.ToLower(name), strings.Trim(value, " \t")
		if name != "infohash" && seen[name] {
			return nil, fmt.Errorf("%w: header %.40q twice", errForm, name)
		}
		seen[name] = true
		switch name {
		case "port":
			port, err := strconv.ParseUint(value, 10, 16)
			if err != nil || port == 0 {
				return nil, fmt.Errorf("%w: port %.40q", errForm, value)
			}
			d.port = uint16(port)
		case "infohash":
			var h [20]byte
			if len(value) != 2*len(h) {
				return nil, fmt.Errorf("%w: infohash %.80q", errForm, value)
			}
			if _, err := hex.Decode(h[:], []byte(value)); err != nil {
				return nil, fmt.Errorf("%w: infohash %.80q", errForm, value)
			}
			d.list = append(d.list, h)
		case "cookie":
			if len(value) <= maxCookie {
				d.cookie = value
			}
		case strings.ToLower(memberHeader):
			d.member = value
		}
	}
	if d.port == 0 || len(d.list) == 0 {
		return nil, fmt.Errorf("%w: no port or no infohash", errForm)
	}
	return d, nil
}

// encode writes the datagram for a group.
func (d *datagram) encode(group netip.AddrPort) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\r\nHost: %s\r\nPort: %d\r\n", firstLine, group, d.port)
	for _, h := range d.list {
		fmt.Fprintf(&b, "Infohash: %x\r\n", h)
	}
	if d.cookie != "" {
		fmt.Fprintf(&b, "cookie: %s\r\n", d.cookie)
	}
	if d.member != "" {
		fmt.Fprintf(&b, "%s: %s\r\n", memberHeader, d.member)
	}
	b.WriteString("\r\n\r\n")
	return b.Bytes()
}

// A secret is what members of a fleet know each other's datagrams by.
type secret [32]byte

// name is what the fleet calls a torrent on the LAN.
func (s secret) name(infohash [20]byte) (n [20]byte) {
	m := hmac.New(sha256.New, s[:])
	m.Write(infohash[:])
	copy(n[:], m.Sum(nil))
	return n
}

// mac covers who can be reached where, and what it has. No infohash is as long as that,
// so that a name can be no MAC.
func (s secret) mac(address string, d *datagram) []byte {
	m := hmac.New(sha256.New, s[:])
	fmt.Fprintf(m, "%s\n%d\n", address, d.port)
	for _, h := range d.list {
		fmt.Fprintf(m, "%x\n", h)
	}
	return m.Sum(nil)
}

// seal makes d a member's that is sent from an address.
func (s secret) seal(d *datagram, from netip.Addr) {
	d.member = from.String() + " " + hex.EncodeToString(s.mac(from.String(), d))
}

// sealed reports whether d is a member's and came from where it was sent.
func (s secret) sealed(d *datagram, from netip.Addr) bool {
	address, coded, _ := strings.Cut(d.member, " ")
	said, err := netip.ParseAddr(address)
	if err != nil || said != from {
		return false
	}
	mac, err := hex.DecodeString(coded)
	return err == nil && hmac.Equal(mac, s.mac(address, d))
}
