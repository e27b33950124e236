// Command shoal distributes signed software updates peer to peer: it publishes and
// seeds releases, and keeps the programs of a fleet of machines up to date.
//
// This package is the person's side of Shoal: flags, signals, output and exit
// statuses. It decides nothing about trust; the packages below it do. [run] is the
// whole program as a function, and is what the tests call.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if status, instead := startSelf(os.Args[1:]); instead {
		os.Exit(status)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the default action is back, so that a second one ends a
	// program that does not stop.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], stdio{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}
