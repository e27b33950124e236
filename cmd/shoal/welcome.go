package main

import "fmt"

// welcome is what "shoal" alone prints: what it is and what to do next here.
func (c *cli) welcome() error {
	_, err := fmt.Fprint(c.std.out, "shoal: signed software updates that spread machine to machine\n")
	return err
}
