//go:build !linux

// Command delay needs packet sockets, which only Linux has.
package main

func main() { panic("delay: needs Linux") }
