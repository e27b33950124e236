package apply

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bootClock names this run of the machine and says how long it has lasted, which no
// change of the wall clock moves. The name is empty when it is not known.
func bootClock() (id string, up time.Duration) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", 0
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return "", 0
	}
	return strings.TrimSpace(string(b)), time.Duration(ts.Nano())
}
