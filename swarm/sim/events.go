package sim

import (
	"container/heap"
	"time"
)

// events are what is to happen, and when, in the order in which it was said of the same
// moment.
type events struct {
	now   time.Duration
	queue eventQueue
	count int
}

type event struct {
	at    time.Duration
	count int
	do    func()
}

var epoch = time.Unix(1e9, 0)

func (e *events) clock() time.Time { return epoch.Add(e.now) }

func (e *events) after(d time.Duration, do func()) {
	e.count++
	heap.Push(&e.queue, event{e.now + d, e.count, do})
}

// step does what is next, if there is anything.
func (e *events) step() bool {
	if len(e.queue) == 0 {
		return false
	}
	next := heap.Pop(&e.queue).(event)
	e.now = next.at
	next.do()
	return true
}

// eventQueue implements heap.Interface.
type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].count < q[j].count
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(e any)   { *q = append(*q, e.(event)) }
func (q *eventQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
