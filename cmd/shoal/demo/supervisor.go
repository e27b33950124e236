package demo

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const (
	startBound   = 20 * time.Second // for the first start of a program on a busy machine
	maxProgramID = 4 << 10          // of what a program answers is read
)

// supervisor runs each machine's program as a service manager would, and takes orders
// from the agents' service commands over HTTP on loopback. A program that ends by
// itself stays ended.
type supervisor struct {
	group *group
	srv   *http.Server
	base  string // URL, with a word in it that other users of this computer do not know
	done  chan struct{}

	// mu guards programs.
	mu       sync.Mutex
	programs map[string]*program
}

// program is one machine's running program.
type program struct {
	group  *group
	target string
	log    *os.File

	// mu guards addr and proc, and makes orders wait for each other.
	mu   sync.Mutex
	addr string // host:port; known once it has started for the first time
	proc *process
}

func newSupervisor(g *group) (*supervisor, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the demo's supervisor: %w", err)
	}
	s := &supervisor{group: g, programs: map[string]*program{}, done: make(chan struct{})}
	secret := rand.Text()
	s.base = "http://" + l.Addr().String() + "/" + secret
	mux := http.NewServeMux()
	mux.HandleFunc("POST /"+secret+"/{machine}/{action}", s.order)
	s.srv = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(s.done)
		s.srv.Serve(l) // ends with Close
	}()
	return s, nil
}

func (s *supervisor) Close() {
	s.srv.Close()
	<-s.done
	for _, p := range s.programs {
		p.log.Close()
	}
}

// Add makes target the program of a machine and starts it. It returns its address.
func (s *supervisor) Add(machine, target, log string) (string, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return "", err
	}
	p := &program{group: s.group, target: target, addr: "127.0.0.1:0", log: f}
	s.mu.Lock()
	s.programs[machine] = p
	s.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	announced, err := p.start()
	if err != nil {
		return "", err
	}
	select {
	case p.addr = <-announced:
		return p.addr, nil
	case <-p.proc.done:
		return "", fmt.Errorf("starting the program of %s: it ended: %v\n%s", machine, p.proc.err, tail(log, 5))
	case <-time.After(startBound):
		return "", fmt.Errorf("starting the program of %s: it does not listen after %s", machine, startBound)
	}
}

// URL is where a machine's service commands send their orders.
func (s *supervisor) URL(machine string) string { return s.base + "/" + machine }

func (s *supervisor) order(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	p, ok := s.programs[r.PathValue("machine")]
	s.mu.Unlock()
	if !ok {
		http.Error(w, "no such machine", http.StatusNotFound)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	switch r.PathValue("action") {
	case "status":
		if p.proc == nil || !p.proc.Running() {
			err = errors.New("it does not run")
		} else {
			fmt.Fprintln(w, p.proc.cmd.Process.Pid)
		}
	case "stop":
		p.stop()
	case "start":
		if p.proc == nil || !p.proc.Running() {
			_, err = p.start()
		}
	case "restart":
		p.stop()
		_, err = p.start()
	default:
		err = errors.New("no such order")
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

// start starts the program, and sends its address once it listens. p.mu is held.
func (p *program) start() (<-chan string, error) {
	cmd := exec.Command(p.target, "demo", "program", "--listen", p.addr)
	cmd.Stderr = p.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	announced := make(chan string, 1)
	p.proc, err = p.group.Start(cmd, func() {
		lines := bufio.NewScanner(io.TeeReader(out, p.log))
		if lines.Scan() {
			if addr, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
				announced <- addr
			}
		}
		io.Copy(p.log, out)
	})
	return announced, err
}

func (p *program) stop() {
	if p.proc != nil {
		p.proc.Stop()
	}
}

// askVersion asks a program over HTTP which version it is.
func askVersion(ctx context.Context, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/version", nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxProgramID))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("asking which version answers: %s", resp.Status)
	}
	return string(b), nil
}
