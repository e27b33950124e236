//go:build !linux

package lan

import "strings"

// virtual are the beginnings of names of interfaces that are no hardware, on the systems
// that do not say so in a better way.
var virtual = []string{
	"awdl", "br-", "bridge", "cni", "docker", "gif", "ipsec", "llw", "ppp", "stf", "tailscale",
	"tap", "tun", "utun", "vboxnet", "vethernet", "virbr", "vmnet", "wg", "wsl", "zt",
}

func physical(name string) bool {
	name = strings.ToLower(name)
	for _, v := range virtual {
		if strings.HasPrefix(name, v) {
			return false
		}
	}
	return true
}
