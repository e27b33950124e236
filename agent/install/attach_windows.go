package install

import (
	"context"

	"github.com/kardianos/service"
)

// Attach has the service manager's wish to stop end the returned context, where it comes
// by other means than a signal. end is to be called when all is done.
func Attach(ctx context.Context) (_ context.Context, end func()) {
	if service.Interactive() {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &attached{cancel: cancel, asked: make(chan struct{}), ended: make(chan struct{})}
	s, err := service.New(p, managed(Options{}))
	if err != nil {
		return ctx, cancel
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		_ = s.Run()
	}()
	return ctx, func() {
		cancel()
		close(p.ended)
		select {
		case <-p.asked:
			<-told // the manager has to hear that it stopped
		default: // nobody asked: the failure actions start it again
		}
	}
}

// attached is the agent as the service manager sees it.
type attached struct {
	cancel       context.CancelFunc
	asked, ended chan struct{}
}

func (p *attached) Start(service.Service) error { return nil }

func (p *attached) Stop(service.Service) error {
	close(p.asked)
	p.cancel()
	<-p.ended
	return nil
}
