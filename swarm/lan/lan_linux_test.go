package lan

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPhysical(t *testing.T) {
	sys := t.TempDir()
	add := func(name, devtype string, files ...string) {
		t.Helper()
		dir := filepath.Join(sys, name)
		for _, f := range files {
			if err := os.MkdirAll(filepath.Join(dir, f), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		uevent := "INTERFACE=" + name + "\nIFINDEX=2\n"
		if devtype != "" {
			uevent = "DEVTYPE=" + devtype + "\n" + uevent
		}
		if err := os.WriteFile(filepath.Join(dir, "uevent"), []byte(uevent), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	add("eth0", "", "device")
	add("wlan0", "wlan", "device")
	add("eth0.10", "vlan", "lower_eth0")
	add("bond0", "bond", "lower_eth0")
	add("br0.7", "vlan", "lower_br0")
	add("br0", "bridge", "bridge", "lower_eth0")
	add("docker0", "bridge", "bridge")
	add("veth1", "")
	add("tun0", "", "tun_flags")
	add("wg0", "wireguard")
	add("wwan0", "wwan", "device")
	add("loop.1", "vlan", "lower_loop.2")
	add("loop.2", "vlan", "lower_loop.1")
	for name, want := range map[string]bool{
		"eth0": true, "wlan0": true, "eth0.10": true, "bond0": true,
		"br0": false, "br0.7": false, "docker0": false, "veth1": false, "tun0": false,
		"wg0": false, "wwan0": false, "loop.1": false, "absent": false, "../eth0": false,
	} {
		if got := physicalUnder(sys, name, 4); got != want {
			t.Errorf("physical(%q) = %v, want %v", name, got, want)
		}
	}
}
