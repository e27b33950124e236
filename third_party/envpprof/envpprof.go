// Package envpprof stands in for the module of that name, and does nothing: see README.md.
package envpprof

// Stop has nothing to stop.
func Stop() {}
