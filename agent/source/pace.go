package source

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// paced cancels the request whose body it reads when too little came in a window of time.
type paced struct {
	io.ReadCloser
	window time.Duration
	need   int64 // bytes in each window
	cancel context.CancelCauseFunc

	mu    sync.Mutex // guards what follows
	got   int64      // bytes in this window
	timer *time.Timer
}

func pace(body io.ReadCloser, window time.Duration, rate int64, cancel context.CancelCauseFunc) *paced {
	p := &paced{ReadCloser: body, window: window, need: int64(window.Seconds() * float64(rate)), cancel: cancel}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(window, p.judge)
	return p
}

func (p *paced) judge() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil {
		return // closed
	}
	if p.got < p.need {
		p.cancel(fmt.Errorf("only %d bytes came in %s", p.got, p.window))
		return
	}
	p.got = 0
	p.timer.Reset(p.window)
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	p.mu.Lock()
	p.got += int64(n)
	p.mu.Unlock()
	return n, err
}

func (p *paced) Close() error {
	p.mu.Lock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.mu.Unlock()
	return p.ReadCloser.Close()
}
