package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"shoal/internal/fault"
	"shoal/swarm/fleet"
)

// fleetKeys are this machine's keys, or nil in an open fleet. A key that is configured
// and cannot be read is an error: without it, what is meant for members would be given to
// everyone.
func (c *Config) fleetKeys() (*fleet.Keys, error) {
	if c.FleetKeys != nil {
		return c.FleetKeys, nil
	}
	k, err := fleet.Load(c.FleetKeyFile, c.FleetCredentials)
	if err == nil {
		return k, nil
	}
	code := fault.Config
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fleet.ErrExposed) {
		code = fault.Permission
	}
	e := fault.New(code, "%w", err).
		Line("The configuration says that this fleet has a key. What is installed keeps running.").Fact("file", c.FleetKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		e.Do("get the fleet's key from its publisher, and: shoal agent join LINK --fleet-key FILE").
			Do("or take fleet_key_file out of the configuration, if the fleet is open")
	}
	return nil, e
}

// joinFleet is the membership of the agent itself. A machine that has just become another
// one, as a clone has, becomes another member, too.
func (c *Config) joinFleet(fresh bool) (*fleet.Member, error) {
	if fresh {
		if err := c.forgetLeaf(); err != nil {
			return nil, err
		}
	}
	return c.member(c.StateDir)
}

func (c *Config) forgetLeaf() error {
	if err := os.Remove(filepath.Join(c.StateDir, fleet.LeafFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return coded(err, "removing the leaf's key")
	}
	return nil
}

// leaveFleet removes what makes this machine a member.
func (c *Config) leaveFleet() error {
	if err := c.forgetLeaf(); err != nil || c.FleetKeyFile == "" {
		return err
	}
	if err := os.Remove(c.FleetKeyFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return coded(err, "removing the fleet's key")
	}
	return nil
}

// member is the membership with the leaf kept in dir, or nil in an open fleet. Without a
// dir it is for this process alone.
func (c *Config) member(dir string) (*fleet.Member, error) {
	k, err := c.fleetKeys()
	if k == nil || err != nil {
		return nil, err
	}
	m, err := k.Join(dir)
	if err != nil {
		return nil, coded(err, "becoming a member of the fleet")
	}
	return m, nil
}

// keepFleetKeys writes the keys a join was given to where the agent will look for them.
func (c *Config) keepFleetKeys() error {
	if c.FleetKeys == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.FleetKeyFile), 0o755); err != nil {
		return coded(err, "keeping the fleet's key")
	}
	err := c.FleetKeys.Write(c.FleetKeyFile)
	if !errors.Is(err, fs.ErrExist) {
		if err != nil {
			return coded(err, "keeping the fleet's key")
		}
		return nil
	}
	there, err := fleet.Read(c.FleetKeyFile)
	if err == nil && there.Equal(c.FleetKeys) {
		return nil
	}
	found := "It holds " + fmt.Sprint(there) + "; the one given is " + c.FleetKeys.String() + "."
	if err != nil {
		found = "It cannot be read: " + err.Error() + "."
	}
	return fault.New(fault.Usage, "there is another fleet key in %q, and keys are never overwritten", c.FleetKeyFile).
		Line("%s", found).Line("Nothing was changed.").
		Do("to replace the key: install -m 600 FILE %s, and restart the agent", c.FleetKeyFile)
}

// wrongKey makes of a source that has another fleet key what a person who joins wants to
// know; every other error stays as it is.
func wrongKey(err error) error {
	var k *fleet.KeyError
	if !errors.As(err, &k) {
		return err
	}
	if len(k.Have) == 0 {
		return fault.New(fault.Config, "this fleet has a key, and this machine has not got it").
			Line("The server shows the certificate of fleet key %s. Nothing was changed.", k.Found).
			Do("get the file from the publisher, apart from the link, and: shoal agent join LINK --fleet-key FILE").
			Fact("found", k.Found)
	}
	return fault.New(fault.Config, "the fleet key is not the one of this fleet").
		Line("The server shows the certificate of fleet key %s; the key here is %s. Nothing was changed.", k.Found, strings.Join(k.Have, " and ")).
		Do("get the file from the publisher of this fleet: its shoal keys fleet FILE prints %s", k.Found).
		Fact("found", k.Found).Fact("have", k.Have)
}
