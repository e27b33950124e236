package apply

import (
	"context"
	"errors"
	"io/fs"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"shoal/agent/internal/command"
	"shoal/internal/fault"
)

const (
	defaultInstallTime = 30 * time.Minute
	installerFile      = "{file}" // stands for the package in an Installer's commands
)

// Exit statuses of Windows Installer.
const (
	msiRebootInitiated = 1641
	msiRebootRequired  = 3010
	msiBusy            = 1618 // another installation is under way
)

// Installer says how packages of KindInstaller are installed: by commands, whose effect
// nobody but they can tell. So a package is installed at most once, what fails is not
// put back unless there is a command for that, and what was interrupted is left to a
// person; unless the commands are said to be idempotent.
//
// A command is an argv list, which no shell reads; "{file}" in it stands for the
// package's path, which ends in the name of Target.Path. It has the environment of a
// hook, and is not interrupted when the agent stops.
type Installer struct {
	Command []string // installs the package {file}
	// Revert puts things back to how they were with the package {file}, the one before; on
	// a first install {file} is the new package, and SHOAL_FROM_SHA256 is not set. Empty
	// means that nothing is ever put back by itself.
	Revert []string
	// Success are the exit statuses besides 0 that mean it is done; nil means none, on
	// Windows 1641 and 3010: done, and the machine wants to be restarted.
	Success []int
	// RetryLater are those that mean nothing was done, and it will work another time; nil
	// means none, on Windows 1618: another installation is under way.
	RetryLater []int
	// Idempotent says that both commands may be run again, whatever an earlier run has
	// left or is still doing.
	Idempotent bool
	Timeout    time.Duration // for each command; zero means 30 minutes
}

func (in Installer) defaults() (Installer, error) {
	hasFile := func(argv []string) bool {
		return slices.ContainsFunc(argv, func(a string) bool { return strings.Contains(a, installerFile) })
	}
	if !hasFile(in.Command) || len(in.Revert) > 0 && !hasFile(in.Revert) {
		return in, fault.New(fault.Config, "an installer's commands need %q, where the package's path is to stand", installerFile).
			Do(`command: [dpkg, --install, "{file}"]`)
	}
	if in.Timeout < 0 {
		return in, fault.New(fault.Config, "an installer's timeout cannot be negative")
	}
	if in.Timeout == 0 {
		in.Timeout = defaultInstallTime
	}
	if runtime.GOOS == "windows" {
		if in.Success == nil {
			in.Success = []int{msiRebootInitiated, msiRebootRequired}
		}
		if in.RetryLater == nil {
			in.RetryLater = []int{msiBusy}
		}
	}
	return in, nil
}

// installer is a package that a command installs. The target is the package that was
// installed last: it is swapped as a binary is, once the command has succeeded.
type installer struct {
	binary
	Installer
}

// notBegun is an error that came before anything was done.
type notBegun struct{ error }

func (n notBegun) Unwrap() error { return n.error }

func (i *installer) opaque() *Installer { return &i.Installer }

// forward is the command of a transaction.
func (in *Installer) forward(j *journal) (name string, argv []string) {
	if j.Back {
		return "revert", in.Revert
	}
	return "install", in.Command
}

// backward is the command that undoes it; there may be none.
func (in *Installer) backward(j *journal) (name string, argv []string) {
	if j.Back {
		return "install", in.Command
	}
	return "revert", in.Revert
}

func (i *installer) swap(ctx context.Context, j *journal) error {
	if err := i.stillSame(j); err != nil {
		return notBegun{err}
	}
	name, argv := i.forward(j)
	if err := i.run(ctx, j, name, argv, j.Staged); err != nil {
		return err
	}
	if err := i.fs.Rename(j.Staged, i.target); err != nil {
		return err
	}
	return i.fs.SyncDir(i.dir())
}

func (i *installer) restore(ctx context.Context, j *journal) error {
	name, argv := i.backward(j)
	file := j.Backup
	if j.From.absent() {
		file = j.Staged
		if _, err := i.fs.Lstat(file); errors.Is(err, fs.ErrNotExist) {
			file = i.target // it had come as far as that
		}
	}
	if err := i.run(ctx, j, name, argv, file); err != nil {
		return err
	}
	return i.place.restore(ctx, j)
}

// run runs a command with the package in file.
func (i *installer) run(ctx context.Context, j *journal, name string, argv []string, file string) error {
	offered, err := i.offer(j, file)
	if err != nil {
		return notBegun{err}
	}
	own := make([]string, len(argv))
	for n, a := range argv {
		own[n] = strings.ReplaceAll(a, installerFile, offered)
	}
	// It would be left half done if it ended when the agent does.
	o, err := command.Run(context.WithoutCancel(ctx), command.Command{Argv: own, Env: environment(j, name), Timeout: i.Timeout})
	r := HookResult{Hook: name, Exit: o.Exit, Output: o.Output}
	done := err == nil || slices.Contains(i.Success, o.Exit)
	if !done {
		r.Error = err.Error()
	}
	j.ran(r)
	var noProgram *exec.Error
	var noFile *fs.PathError
	switch {
	case done:
		_ = i.remove(offered) // clean does it again
		return nil
	case slices.Contains(i.RetryLater, o.Exit):
		return notBegun{fault.New(fault.Locked, "another installation is under way: %w", err).
			Line("nothing was changed").Do("the agent tries again by itself")}
	case errors.As(err, &noProgram), errors.As(err, &noFile):
		return notBegun{fault.New(fault.Config, "the %s command could not be started: %w", name, err).
			Line("nothing was changed").Do("look at installer in this app's configuration")}
	}
	return fault.New(fault.ApplyFailed, "the %s command failed: %w", name, err)
}

// offer gives file the name that its command sees: many installers go by its end.
func (i *installer) offer(j *journal, file string) (string, error) {
	offered := filepath.Join(i.dir(), offeredPrefix+j.Tx+i.offeredSuffix())
	if err := i.remove(offered); err != nil { // left by a crash
		return "", err
	}
	err := i.fs.Link(file, offered)
	if !cannotLink(err) {
		return offered, err
	}
	f, err := i.fs.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	_, err = i.copy(context.Background(), offered, reading(context.Background(), f, info.Size), func(File) (Meta, error) { return f.Meta() })
	return offered, err
}

const offeredPrefix = ".shoal-"

func (i *installer) offeredSuffix() string { return "-" + filepath.Base(i.target) }

func (i *installer) clean(j *journal, keepBackup bool) error {
	if err := i.remove(filepath.Join(i.dir(), offeredPrefix+j.Tx+i.offeredSuffix())); err != nil {
		return err
	}
	return i.binary.clean(j, keepBackup)
}

func (i *installer) leftovers() ([]string, error) {
	all, err := i.binary.leftovers()
	if err != nil {
		return nil, err
	}
	list, err := i.fs.ReadDir(i.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, name := range list {
		if strings.HasPrefix(name, offeredPrefix) && strings.HasSuffix(name, i.offeredSuffix()) {
			all = append(all, filepath.Join(i.dir(), name))
		}
	}
	return all, err
}

// begun records durably that a command is about to run, for a kind that has commands.
func (s *session) begun() error {
	if s.sw.opaque() == nil {
		return nil
	}
	before := *s.j
	s.j.State = Committing
	s.j.Runs++
	if err := s.store.save(s.j); err != nil {
		*s.j = before
		return explain("recording that the installer begins", s.target, err)
	}
	return nil
}

// settleRun goes on from a transaction whose command was begun: after a crash (no
// cause), or after an error.
func (s *session) settleRun(ctx context.Context, cause error) (Result, error) {
	j := s.j
	f, err := s.look()
	if err != nil {
		return s.result(Committing), explain("looking at the target", s.target, errors.Join(cause, err))
	}
	if errors.As(cause, new(notBegun)) && f == foundOld {
		return s.abort(cause)
	}
	if cause == nil {
		if f == foundNew {
			return s.confirm(ctx)
		}
		if s.sw.opaque().Idempotent && f == foundOld && j.Runs < s.p.MaxAttempts {
			if err := errors.Join(s.sw.unchanged(j), s.sw.verify(j)); err != nil {
				return s.result(Committing), explain("looking at the package again", s.target, err)
			}
			return s.commit(ctx)
		}
		cause = fault.New(fault.ApplyFailed, "the agent stopped while the installer ran: how far it came is unknown")
	}
	return s.revert(ctx, cause)
}

// mayUndo records durably that the command that puts things back is about to run, for a
// kind that has commands. The error is why it must not.
func (s *session) mayUndo() error {
	in := s.sw.opaque()
	if in == nil {
		return nil
	}
	if _, argv := in.backward(s.j); len(argv) == 0 {
		return errors.New("no revert command is configured")
	}
	if s.j.Undos > 0 && !in.Idempotent {
		return errors.New("the agent stopped while the revert command ran: how far it came is unknown")
	}
	s.j.Undos++
	return s.store.save(s.j)
}
