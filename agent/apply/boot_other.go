//go:build !linux

package apply

import "time"

// bootClock knows nothing here: every recovery is treated as one after a reboot.
func bootClock() (id string, up time.Duration) { return "", 0 }
