//go:build !windows

package service

import "errors"

func openSCM(string) (scm, error) { return nil, errors.New("this is not Windows") }
