// Package demo updates a small fleet on this machine, live, with the real commands:
// a publisher and a few agents as processes of their own, each with its own directory
// and its own running copy of a small program, on loopback only, in a fleet with a key.
//
// It shows what must work, a release that spreads from agent to agent in waves, and gets
// as a bundle to where no network reaches, and what must not: a release with too few
// signatures, an old release offered again, a release whose program crashes. Every number it prints was measured, what each machine runs
// is asked over HTTP, and anything that differs from what must happen is an error.
// Whatever it started and wrote is gone when it ends, however it ends.
package demo
