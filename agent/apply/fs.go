package apply

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
)

// FS is the file system as this package needs it: every effect it has on disk goes
// through here, so that tests can stop it at any call and cut the power. Paths are
// absolute. Errors can be told by errors.Is with io/fs's errors and syscall.Errno.
type FS interface {
	// Resolve follows the symbolic links of path; its last element need not exist.
	Resolve(path string) (string, error)
	// Readlink returns what the symbolic link path says.
	Readlink(path string) (string, error)
	// Lstat describes what path names, without following a link.
	Lstat(path string) (Info, error)
	// ReadDir returns the names in dir.
	ReadDir(dir string) ([]string, error)
	// MkdirAll makes dir, with mode 0700, and the directories that lead to it.
	MkdirAll(dir string) error
	// Open opens a regular file for reading, following no link.
	Open(path string) (File, error)
	// Create makes a file with mode 0600 that is not there yet, following no link.
	Create(path string) (File, error)
	// Link gives a file a second name, which must not be there yet.
	Link(name, second string) error
	// Rename moves a file over whatever from leads to in one step.
	Rename(from, to string) error
	Remove(path string) error
	// Symlink makes path, which must not be there yet, a link that says to. Where links
	// take a privilege it is a small file; Readlink reads it.
	Symlink(to, path string) error
	// Mkdir makes the directory path with mode 0755, whatever the umask is.
	Mkdir(path string) error
	// MakeTree is Mkdir and OpenTree.
	MakeTree(path string) (Tree, error)
	// OpenTree opens the directory path.
	OpenTree(path string) (Tree, error)
	// RemoveAll removes path and all that is in it, following no link.
	RemoveAll(path string) error
	// SyncDir makes the names in dir durable.
	SyncDir(dir string) error
	// Lock takes an exclusive lock that ends with the process, on a file that is made
	// for it and never removed. It returns errLocked at once if it is taken.
	Lock(path string) (io.Closer, error)
	// Space returns what is free for this process on the file system of dir.
	Space(dir string) (Space, error)
	// CommitBinary is minio/selfupdate's: it moves target to old and then
	// DIR/.NAME.new to target. In between there is no target.
	CommitBinary(target, old string) error
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.Writer
	io.Closer
	Stat() (Info, error)
	// Sync makes content and metadata durable.
	Sync() error
	// Meta returns all that has to be kept when the content is replaced.
	Meta() (Meta, error)
	// SetMeta sets it, capabilities last, because changing the owner clears them.
	SetMeta(Meta) error
}

// Tree is a directory out of which no name and no link leads. Names are relative, with
// slashes.
type Tree interface {
	io.Closer
	Mkdir(name string, mode fs.FileMode) error
	// Create makes a file that is not there yet.
	Create(name string, mode fs.FileMode) (io.WriteCloser, error)
	Symlink(to, name string) error
	// Link gives the file name a second name.
	Link(name, second string) error
	// Sync makes all that was made through this Tree durable, but for its own name.
	Sync() error
	// FS reads it, with fs.ReadLinkFS.
	FS() fs.FS
}

// Info describes a file.
type Info struct {
	Mode     fs.FileMode
	Size     int64
	UID, GID int
	ID       [2]uint64 // device and inode: two names with the same ID are one file
	// Modified and Changed are when its content, and anything about it, last changed, in
	// nanoseconds of Unix time; Changed is zero where the system does not tell.
	Modified, Changed int64
}

// Space is what is free on a file system.
type Space struct {
	Bytes  uint64
	Files  uint64 // inodes; meaningful only if Inodes is set
	Inodes bool   // whether this file system counts them
}

// Meta is a file's owner, mode and extended attributes. Capabilities, access control
// lists and security labels are extended attributes.
type Meta struct {
	Mode     fs.FileMode // permissions, setuid, setgid, sticky
	UID, GID int
	Xattrs   map[string][]byte
}

func (m Meta) equal(o Meta) bool {
	return m.Mode == o.Mode && m.UID == o.UID && m.GID == o.GID && maps.EqualFunc(m.Xattrs, o.Xattrs, bytes.Equal)
}

// metaBits are the mode bits that are metadata to keep.
const metaBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

var (
	errLocked     = errors.New("locked by another process")
	errNotRegular = errors.New("not a regular file")
	errNotLink    = errors.New("not a link")
)

// notOurs reports whether err says that something is at a place that this package
// cannot have put there.
func notOurs(err error) bool { return errors.Is(err, errNotRegular) || errors.Is(err, errNotLink) }
