package demo

import "os/exec"

func own(*exec.Cmd) {}

func detach(*exec.Cmd) {}

// Windows has no signal that asks a process to end.
func interrupt(cmd *exec.Cmd) { cmd.Process.Kill() }

func kill(cmd *exec.Cmd) { cmd.Process.Kill() }
