package service

import (
	"errors"

	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

type managed struct {
	m *mgr.Mgr
	s *mgr.Service
}

func openSCM(name string) (scm, error) {
	m, err := mgr.Connect()
	if err != nil {
		return nil, err
	}
	s, err := m.OpenService(name)
	if err != nil {
		return nil, errors.Join(err, m.Disconnect())
	}
	return managed{m, s}, nil
}

func (m managed) query() (scmStatus, error) {
	q, err := m.s.Query()
	if err != nil {
		return scmStatus{}, err
	}
	c, err := m.s.Config()
	return scmStatus{uint32(q.State), q.Win32ExitCode, q.ProcessId, c.StartType == mgr.StartDisabled}, err
}

func (m managed) start() error { return m.s.Start() }

func (m managed) stop() error {
	_, err := m.s.Control(svc.Stop)
	return err
}

func (m managed) Close() error { return errors.Join(m.s.Close(), m.m.Disconnect()) }
