package publisher

import (
	"errors"
	"net"
	"strconv"
	"syscall"

	"shoal/internal/fault"
)

// What Windows says for EACCES and EADDRINUSE; no other system has such numbers.
const (
	wsaAccess    = syscall.Errno(10013)
	wsaAddrInUse = syscall.Errno(10048)
)

// portError says why a port cannot be listened on, and who has it if that can be known.
func portError(addr, key, flag string, err error) error {
	switch {
	case errors.Is(err, syscall.EACCES) || errors.Is(err, wsaAccess):
		return fault.New(fault.Permission, "may not listen on %q: %w", addr, err).
			Line("Ports below 1024 are for root, or for whoever has CAP_NET_BIND_SERVICE.").
			Do("choose another port: %s, or %s in publisher.yaml", flag, key)
	case !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, wsaAddrInUse):
		return fault.New(fault.Config, "cannot listen on %q: %w", addr, err).
			Do("set another address: %s, or %s in publisher.yaml", flag, key)
	}
	e := fault.New(fault.PortInUse, "another process listens on %q already: %w", addr, err).Fact("address", addr)
	_, port, _ := net.SplitHostPort(addr)
	if n, perr := strconv.ParseUint(port, 10, 16); perr == nil {
		if who := listener(uint16(n)); who != "" {
			e.Line("It is %s.", who).Fact("process", who)
		}
	}
	e.Message = "another process listens on " + strconv.Quote(addr) + " already"
	return e.Do("stop it, if it is another shoal serve").
		Do("or choose another port: %s, or %s in publisher.yaml", flag, key)
}
