package lan

import (
	"os"
	"path/filepath"
	"strings"
)

// physical reports whether the interface is hardware of this machine (or of the virtual
// machine it is), or a VLAN or bond over such.
func physical(name string) bool { return physicalUnder("/sys/class/net", name, 4) }

// physicalUnder looks at most depth interfaces deep: stacks are finite, sysfs is not ours.
func physicalUnder(sys, name string, depth int) bool {
	if depth == 0 || name != filepath.Base(name) {
		return false
	}
	dir := filepath.Join(sys, name)
	exists := func(file string) bool {
		_, err := os.Stat(filepath.Join(dir, file))
		return err == nil
	}
	if exists("bridge") || exists("tun_flags") {
		return false
	}
	switch devtype(dir) {
	case "", "wlan":
		return exists("device")
	case "vlan", "bond":
		lower, _ := filepath.Glob(filepath.Join(dir, "lower_*"))
		for _, l := range lower {
			if !physicalUnder(sys, strings.TrimPrefix(filepath.Base(l), "lower_"), depth-1) {
				return false
			}
		}
		return len(lower) > 0
	default: // wwan, wireguard, vxlan, bridge, veth ...
		return false
	}
}

// devtype is the kernel's word for the kind of interface; plain Ethernet has none.
func devtype(dir string) string {
	uevent, err := os.ReadFile(filepath.Join(dir, "uevent"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(uevent)) {
		if t, ok := strings.CutPrefix(line, "DEVTYPE="); ok {
			return strings.TrimSpace(t)
		}
	}
	return ""
}
