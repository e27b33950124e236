// Command shoal distributes signed software updates peer to peer: it publishes and
// seeds releases, and keeps the programs of a fleet of machines up to date.
//
// This package is the person's side of Shoal: flags, signals, output and exit
// statuses. It decides nothing about trust. [run] is the whole program as a function, and
// is what the tests call.
//
// It puts together the verbs, which stand in rooms below internal, one file a verb:
//
//	releasecmd    init, publish, release            what is made and taken back
//	rolloutcmd    rollout                           how it reaches the machines
//	deliverycmd   serve link mirror bundle fetch seed   how it gets about
//	fleetcmd      fleet                             what the machines report
//	agentcmd      agent                             this machine
//	trustcmd      keys trust manifest channel       ceremonies
//	lookcmd       doctor verify explain config ...  looking around
//
// A verb's room imports no other verb's. What two of them share is in cli, the frame of
// every command; in machine, this machine's agent as verbs reach it; in publishing, the
// publisher's desk; or in words, values as people read them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"shoal/cmd/shoal/internal/agentcmd/selfcmd"
	"shoal/cmd/shoal/internal/cli"
)

func main() {
	if status, instead := selfcmd.Start(os.Args[1:]); instead {
		os.Exit(status)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the default action is back, so that a second one ends a
	// program that does not stop.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}

// run runs one command line and returns its exit status. It neither exits nor
// touches the process's own standard streams.
func run(ctx context.Context, args []string, std cli.Streams) int {
	c := cli.New(std)
	return c.Execute(ctx, newRoot(c), args)
}
