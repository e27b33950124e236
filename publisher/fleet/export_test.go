package fleet

// Keep bounds the store to so many machines, events of each share, and marks.
func (c *Config) Keep(agents, events, newcomers, marks int) {
	c.most = bounds{agents: agents, events: [shares]int{events, events, newcomers}, marks: marks}
}
