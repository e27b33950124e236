package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

const (
	maxOutput = 4 << 20 // of one command's output is kept
)

// group starts processes and answers for their end: none outlives Close, and on Linux
// none outlives the demo however it dies.
type group struct {
	note   func(pid int) error // called for each process started; may be nil
	grace  time.Duration       // between asking a process to end and ending it
	starts chan func()         // run by one goroutine that keeps to its thread
	ended  chan struct{}

	// mu guards procs and closed.
	mu     sync.Mutex
	procs  map[*process]struct{}
	closed bool
}

var errClosed = errors.New("the demo is ending")

func newGroup() *group {
	g := &group{grace: 5 * time.Second, starts: make(chan func()), ended: make(chan struct{}), procs: map[*process]struct{}{}}
	go func() {
		defer close(g.ended)
		// Linux ends a child when the *thread* that started it ends, so all children are
		// started by one thread, which lives as long as the group.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for start := range g.starts {
			start()
		}
	}()
	return g
}

// process is one running child.
type process struct {
	cmd   *exec.Cmd
	grace time.Duration
	done  chan struct{} // closed when it has ended; err is set then
	err   error
}

// Start starts cmd in a process group of its own. reap, when not nil, runs before the
// process is waited for: it reads what the process writes, to the end.
func (g *group) Start(cmd *exec.Cmd, reap func()) (*process, error) {
	own(cmd)
	p := &process{cmd: cmd, grace: g.grace, done: make(chan struct{})}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, errClosed
	}
	started := make(chan error)
	g.starts <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, err
	}
	g.procs[p] = struct{}{}
	if g.note != nil {
		if err := g.note(cmd.Process.Pid); err != nil {
			kill(cmd)
			go p.wait(g, reap)
			return nil, fmt.Errorf("noting the process: %w", err)
		}
	}
	go p.wait(g, reap)
	return p, nil
}

func (p *process) wait(g *group, reap func()) {
	if reap != nil {
		reap()
	}
	p.err = p.cmd.Wait()
	g.mu.Lock()
	delete(g.procs, p)
	g.mu.Unlock()
	close(p.done)
}

// Stop asks the process to end, waits, and ends it when it does not.
func (p *process) Stop() {
	interrupt(p.cmd)
	select {
	case <-p.done:
	case <-time.After(p.grace):
	}
	kill(p.cmd) // also for what it may have left in its group
	<-p.done
}

// Running reports whether the process has not ended.
func (p *process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Close ends every process of the group and waits for all of them.
func (g *group) Close() {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return
	}
	g.closed = true
	var all []*process
	for p := range g.procs {
		all = append(all, p)
	}
	g.mu.Unlock()
	var wg sync.WaitGroup
	for _, p := range all {
		wg.Go(p.Stop)
	}
	wg.Wait()
	close(g.starts)
	<-g.ended
}

// result is how a command ended.
type result struct {
	stdout, stderr []byte
	exit           int
}

// Run runs one command to its end. An exit status is no error; not being able to run
// it, or being interrupted, is.
func (g *group) Run(ctx context.Context, cmd *exec.Cmd) (result, error) {
	var stdout, stderr limited
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = g.grace
	p, err := g.Start(cmd, nil)
	if err != nil {
		return result{}, fmt.Errorf("running %s: %w", cmd, err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Stop()
		return result{}, ctx.Err()
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		return result{}, fmt.Errorf("running %s: %w", cmd, p.err)
	}
	return result{stdout.b.Bytes(), stderr.b.Bytes(), cmd.ProcessState.ExitCode()}, nil
}

// limited keeps the first maxOutput bytes and lets the rest go.
type limited struct{ b bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	if room := maxOutput - l.b.Len(); room > 0 {
		l.b.Write(b[:min(room, len(b))])
	}
	return len(b), nil
}

// tail is the last lines of a log, for a message.
func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	b = bytes.TrimSpace(b)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] == '\n' {
			if lines--; lines == 0 {
				return string(b[i+1:])
			}
		}
	}
	return string(b)
}
