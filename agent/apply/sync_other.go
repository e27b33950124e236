//go:build !linux

package apply

import "os"

func syncAll(*os.Root) {}
