package tracker

import (
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
)

const (
	maxQuery    = 4 << 10 // bytes of a query string; real ones have about 300
	maxScraped  = 64      // torrents in one scrape; BEP 48 names no bound
	maxWant     = 200     // peers in one answer
	defaultWant = 50      // as BEP 3 suggests
)

var keySeed = maphash.MakeSeed()

// announce is what a peer says of itself (BEP 3). What it says of its address (ip,
// ipv4, ipv6) is not read.
type announce struct {
	infohash [20]byte
	id       [20]byte
	port     uint16 // 0: it does not listen
	key      uint32
	seed     bool // it has nothing left to fetch
	stopped  bool
	want     int
	compact  bool
	noID     bool
}

func parseAnnounce(raw string) (announce, error) {
	a := announce{want: defaultWant, compact: true}
	var seen struct{ infohash, id, port bool }
	err := eachParam(raw, func(name, value string) error {
		switch name {
		case "info_hash":
			if seen.infohash || len(value) != len(a.infohash) {
				return errors.New("info_hash must be given once, with 20 bytes")
			}
			seen.infohash = true
			copy(a.infohash[:], value)
		case "peer_id":
			if seen.id || len(value) != len(a.id) {
				return errors.New("peer_id must be given once, with 20 bytes")
			}
			seen.id = true
			copy(a.id[:], value)
		case "port":
			n, err := strconv.ParseUint(value, 10, 16)
			if seen.port || err != nil {
				return errors.New("port must be given once, as a number up to 65535")
			}
			seen.port = true
			a.port = uint16(n)
		case "key":
			a.key = 0
			if value != "" {
				a.key = uint32(maphash.String(keySeed, value)) | 1
			}
		case "left":
			// Magnet clients that do not know yet say -1 or something huge; all that
			// matters is whether it is nothing.
			a.seed = value == "0"
		case "event":
			a.stopped = value == "stopped"
			if value == "completed" {
				a.seed = true
			}
		case "numwant":
			n, err := strconv.Atoi(value)
			if value == "" || err == nil && n < 0 {
				n, err = defaultWant, nil // what clients say when they leave it to us
			}
			if err != nil {
				return errors.New("numwant must be a number")
			}
			a.want = min(n, maxWant)
		case "compact":
			a.compact = value != "0"
		case "no_peer_id":
			a.noID = value == "1"
		}
		return nil
	})
	switch {
	case err != nil:
		return announce{}, err
	case !seen.infohash:
		return announce{}, errors.New("info_hash is missing")
	case !seen.id:
		return announce{}, errors.New("peer_id is missing")
	case !seen.port:
		return announce{}, errors.New("port is missing")
	}
	if a.stopped {
		a.want = 0
	}
	return a, nil
}

// parseScrape returns the torrents asked for; none means all (BEP 48).
func parseScrape(raw string) ([][20]byte, error) {
	var hashes [][20]byte
	err := eachParam(raw, func(name, value string) error {
		if name != "info_hash" {
			return nil
		}
		if len(value) != 20 {
			return errors.New("info_hash must have 20 bytes")
		}
		if len(hashes) == maxScraped {
			return fmt.Errorf("at most %d torrents in one scrape", maxScraped)
		}
		hashes = append(hashes, [20]byte([]byte(value)))
		return nil
	})
	return hashes, err
}

// eachParam calls f for each name=value of a query string, decoded. Values are bytes,
// not text: an infohash is seldom valid UTF-8.
func eachParam(raw string, f func(name, value string) error) error {
	if len(raw) > maxQuery {
		return fmt.Errorf("the query is longer than %d bytes", maxQuery)
	}
	for raw != "" {
		var param string
		param, raw, _ = strings.Cut(raw, "&")
		name, value, _ := strings.Cut(param, "=")
		name, err := unescape(name)
		if err != nil {
			return err
		}
		if value, err = unescape(value); err != nil {
			return err
		}
		if err := f(name, value); err != nil {
			return err
		}
	}
	return nil
}

func unescape(s string) (string, error) {
	if !strings.ContainsAny(s, "%+") {
		return s, nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '+':
			out = append(out, ' ')
		case '%':
			if i+2 >= len(s) {
				return "", errors.New("the query has a cut-off % escape")
			}
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi < 0 || lo < 0 {
				return "", errors.New("the query has a bad % escape")
			}
			out = append(out, byte(hi<<4|lo))
			i += 2
		default:
			out = append(out, s[i])
		}
	}
	return string(out), nil
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
