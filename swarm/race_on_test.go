//go:build race

package swarm_test

// underRace says that the race detector watches.
const underRace = true
