package swarm

// Copies returns how often each piece of a torrent is known to be with the peers, or on
// its way to one: as far as the connections of this node tell, which super seeds it.
// Nil if it does not, or has no such torrent.
func (n *Node) Copies(infohash [20]byte) []int {
	t := n.superShare(infohash)
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.s.Copies()
}
