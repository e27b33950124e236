package service

import (
	"context"
	"errors"
)

type systemd struct{ unit string }

// Systemd returns the service that is the systemd unit of that name.
func Systemd(unit string) (Service, error) { return &systemd{unit}, nil }

func (s *systemd) State(ctx context.Context) (State, error) { return State{}, errors.ErrUnsupported }
func (s *systemd) Restart(ctx context.Context) error        { return errors.ErrUnsupported }
func (s *systemd) Stop(ctx context.Context) error           { return errors.ErrUnsupported }
func (s *systemd) Start(ctx context.Context) error          { return errors.ErrUnsupported }
