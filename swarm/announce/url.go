package announce

import (
	"fmt"
	"net/url"
)

// CheckURL returns the form of a tracker's URL that Start takes. The schemes are http,
// https and udp.
func CheckURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", err
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "udp":
		return "", fmt.Errorf("tracker %q: only http, https and udp are supported", raw)
	case u.User != nil:
		return "", fmt.Errorf("tracker %q: user and password are not supported", u.Redacted())
	case u.Host == "" || u.Opaque != "":
		return "", fmt.Errorf("tracker %q: there is no host", raw)
	case u.Scheme == "udp" && u.Port() == "":
		return "", fmt.Errorf("tracker %q: a udp tracker has no usual port, so the URL must name it", raw)
	}
	u.Fragment, u.RawFragment = "", ""
	return u.String(), nil
}
