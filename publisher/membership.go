package publisher

import (
	"errors"
	"io/fs"
	"net/http"
	"sync"

	"shoal/internal/fault"
	"shoal/swarm/fleet"
)

// FleetKeys reads the fleet's key, or returns nil for an open fleet. A key that is
// configured and cannot be read is an error: without it a release would go out open.
func (c *Config) FleetKeys() (*fleet.Keys, error) {
	k, err := fleet.Load(c.FleetKeyFile, c.FleetCredentials)
	if err == nil {
		return k, nil
	}
	code := fault.Config
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fleet.ErrExposed) {
		code = fault.Permission
	}
	e := fault.New(code, "%w", err).Line("The configuration says that this fleet has a key.").Fact("file", c.FleetKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		e.Do("put it there again: every machine of the fleet has a copy").
			Do("or take fleet_key_file out of publisher.yaml, if the fleet is to be open")
	}
	return nil, e
}

// Transport reaches web servers of the fleet and others. The fleet's key is read when it
// is first used.
func (c *Config) Transport() http.RoundTripper {
	return transport(sync.OnceValues(func() (http.RoundTripper, error) {
		m, err := c.member("")
		return fleet.Transport(m), err
	}))
}

type transport func() (http.RoundTripper, error)

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	via, err := t()
	if err != nil {
		return nil, err
	}
	return via.RoundTrip(req)
}

// member is the membership with the leaf kept in dir, or nil in an open fleet.
func (c *Config) member(dir string) (*fleet.Member, error) {
	k, err := c.FleetKeys()
	if k == nil || err != nil {
		return nil, err
	}
	m, err := k.Join(dir)
	if err != nil {
		code := fault.IO
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fleet.ErrExposed) {
			code = fault.Permission
		}
		return nil, fault.New(code, "becoming a member of the fleet: %w", err)
	}
	return m, nil
}
