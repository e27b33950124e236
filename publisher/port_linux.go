package publisher

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const maxSockets = 1 << 16 // lines of /proc/net/tcp that are read

// listener names the process that listens on a TCP port, as far as this user may see:
// "nginx (process 812)". It is for a message, and empty when it cannot tell.
func listener(port uint16) string {
	sockets := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(f)
		for n := 0; lines.Scan() && n < maxSockets; n++ {
			// sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode; state 0A is LISTEN.
			col := strings.Fields(lines.Text())
			if len(col) > 9 && col[3] == "0A" && strings.HasSuffix(col[1], fmt.Sprintf(":%04X", port)) {
				sockets["socket:["+col[9]+"]"] = true
			}
		}
		f.Close()
	}
	if len(sockets) == 0 {
		return ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || !sockets[to] {
			continue
		}
		proc := filepath.Dir(filepath.Dir(fd))
		name, err := os.ReadFile(filepath.Join(proc, "comm"))
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(proc))
	}
	return ""
}
