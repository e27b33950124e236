// Command delay puts a round trip between the hosts of the swarm bench, on a kernel that
// has no netem.
//
// It takes the place of a bridge: it takes the ports out of it and carries every frame
// from port to port itself, each a fixed time after it came. What the bench shapes it
// leaves alone, because frames go out through the queues of the ports, large ones (GSO)
// whole. It ends when a port is gone, as after a run of the bench, or on SIGTERM.
//
//	delay -bridge 'sb[0-9]+' -by 25ms     # a round trip of 50 ms
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	vnetHeader = 10 // of a struct virtio_net_hdr, before each frame
	maxFrame   = vnetHeader + 64<<10 + 64
	socketRoom = 8 << 20 // bytes that may wait to be read
	ethernet   = 14      // bytes of a frame's header
	onTheirWay = 1 << 14 // frames of one port
)

func main() {
	name := flag.String("bridge", "", "the bridge, as a regular expression")
	by := flag.Duration("by", 25*time.Millisecond, "how long a frame takes")
	flag.Parse()
	if err := run(*name, *by); err != nil {
		log.Fatalln("delay:", err)
	}
}

func run(name string, by time.Duration) error {
	ports, err := portsOf(name)
	if err != nil {
		return err
	}
	s := &sw{by: by, seen: make(map[[6]byte]int)}
	for _, p := range ports {
		if out, err := exec.Command("ip", "link", "set", p, "nomaster", "up").CombinedOutput(); err != nil {
			return fmt.Errorf("taking %q out of the bridge: %w: %s", p, err, out)
		}
		fd, err := open(p)
		if err != nil {
			return fmt.Errorf("opening %q: %w", p, err)
		}
		s.ports = append(s.ports, fd)
	}
	fmt.Println("delaying by", by, "between", len(ports), "ports")
	ended := make(chan error, len(s.ports))
	for i := range s.ports {
		go func() { ended <- s.carry(i) }()
	}
	if err := <-ended; !errors.Is(err, unix.ENETDOWN) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENXIO) {
		return err
	}
	return nil
}

// portsOf returns the ports of the bridge.
func portsOf(name string) ([]string, error) {
	re, err := regexp.Compile("^(?:" + name + ")$")
	if err != nil {
		return nil, err
	}
	bridges, err := filepath.Glob("/sys/class/net/*/brif")
	if err != nil {
		return nil, err
	}
	for _, b := range bridges {
		if !re.MatchString(filepath.Base(filepath.Dir(b))) {
			continue
		}
		entries, err := os.ReadDir(b)
		if err != nil {
			return nil, err
		}
		var ports []string
		for _, e := range entries {
			ports = append(ports, e.Name())
		}
		return ports, nil
	}
	return nil, fmt.Errorf("no bridge is called %q", name)
}

// open returns a socket that reads and writes a port's frames.
func open(port string) (int, error) {
	ifi, err := net.InterfaceByName(port)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	for _, o := range []struct{ level, name, value int }{
		{unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},
		{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketRoom},
		{unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketRoom},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return 0, err
		}
	}
	all := &unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, all); err != nil {
		return 0, err
	}
	const everything = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: ifi.Index})
}

// A sw is a switch with slow wires.
type sw struct {
	by    time.Duration
	ports []int // sockets

	mu   sync.RWMutex
	seen map[[6]byte]int // behind which port an address is
}

type frame struct {
	at time.Time
	b  []byte
}

// carry reads one port for ever.
func (s *sw) carry(from int) error {
	way := make(chan frame, onTheirWay)
	go s.deliver(from, way)
	buf := make([]byte, maxFrame)
	for {
		n, err := unix.Read(s.ports[from], buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n < vnetHeader+ethernet:
			continue
		}
		f := frame{time.Now(), append([]byte(nil), buf[:n]...)}
		s.learn([6]byte(f.b[vnetHeader+6:]), from)
		select {
		case way <- f:
		default: // a full wire loses what comes
		}
	}
}

func (s *sw) learn(addr [6]byte, port int) {
	s.mu.RLock()
	known, ok := s.seen[addr]
	s.mu.RUnlock()
	if !ok || known != port {
		s.mu.Lock()
		s.seen[addr] = port
		s.mu.Unlock()
	}
}

// deliver sends what came in by one port out by others, when it is time.
func (s *sw) deliver(from int, way <-chan frame) {
	for f := range way {
		if d := time.Until(f.at.Add(s.by)); d > 0 {
			time.Sleep(d)
		}
		s.mu.RLock()
		to, ok := s.seen[[6]byte(f.b[vnetHeader:])]
		s.mu.RUnlock()
		for i, fd := range s.ports {
			if i != from && (!ok || i == to) {
				unix.Write(fd, f.b) // a full queue drops it, as queues do
			}
		}
	}
}
