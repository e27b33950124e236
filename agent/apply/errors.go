package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"shoal/internal/fault"
)

// title is how a release is called in messages: "acme 2.4.1".
func title(app string, r Release) string {
	switch {
	case digest(r.SHA256).absent():
		return "no program"
	case r.Version != "":
		return app + " " + r.Version
	}
	return fmt.Sprintf("%s (sha256 %.12s…)", app, digest(r.SHA256))
}

// explain turns what went wrong while doing something to the file at target into
// something a person can act upon. What is one already stays as it is.
func explain(doing, target string, err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	dir := filepath.Dir(target)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fault.New(fault.Interrupted, "%s was interrupted: %w", doing, err)
	case errors.Is(err, errLocked):
		return fault.New(fault.Locked, "another process is updating %q: %w", target, err).
			Line("only one agent at a time can look after a program").
			Do("try again when it is done")
	case errors.Is(err, errTargetChanged):
		return fault.New(fault.ApplyFailed, "%q was changed by somebody else: %w", target, err).
			Line("it was left as they made it")
	case errors.Is(err, errNotRegular):
		return fault.New(fault.UnsafePath, "%s: %w", doing, err).Line("only a regular file can be replaced")
	case errors.Is(err, errNotLink):
		return fault.New(fault.UnsafePath, "%s: %w", doing, err).
			Line("%q is to lead to one of the directories in %q", target, filepath.Join(dir, versionsDir)).
			Do("move it away, or choose another directory as the target")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.New(fault.NoSpace, "%s: %w", doing, err).
			Do("free space on the file systems of %q and of the agent's state", dir).Fact("dir", dir)
	case errors.Is(err, syscall.EROFS):
		return fault.New(fault.Permission, "%s: %w", doing, err).
			Line("the file system is mounted read-only, or the unit's ProtectSystem= makes it so").
			Do("add ReadWritePaths=%s to the agent's unit", dir)
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Permission, "%s: %w", doing, err).
			Line("a rename needs to write the directory %q, not only the file", dir).
			Do("give the directory to the agent's user, or add ReadWritePaths=%s to its unit", dir)
	case errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.EXDEV):
		return fault.New(fault.ApplyFailed, "%s: %w", doing, err).
			Line("%q is a mount point of its own, as a file mounted into a container is: it cannot be replaced from inside", target).
			Do("mount its directory instead of the file, or replace the container's image")
	}
	return fault.New(fault.ApplyFailed, "%s: %w", doing, err)
}

// why is the whole of an error, for a journal and a log.
func why(err error) string {
	if err == nil {
		return ""
	}
	s := err.Error()
	var f *fault.Error
	if errors.As(err, &f) {
		for _, l := range f.Detail {
			s += "\n" + l
		}
	}
	return s
}
