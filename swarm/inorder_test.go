package swarm_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"shoal/swarm"
)

// What is fetched can be read from its beginning while the rest of it comes, and is read
// whole before the fetch is over.
func TestReadWhileItComes(t *testing.T) {
	for _, row := range []struct {
		name   string
		super  bool
		before int // bytes that an earlier fetch left
	}{
		{"a-seed", false, 0},
		{"a-super-seed", true, 0},
		{"begun-before", true, 1 << 20},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newContent(t, 4<<20+5)
			seed := newSeed(t, c, swarm.Config{SuperSeed: row.super, Limits: swarm.Limits{LANUp: 4 << 20}})
			n := newNode(t, swarm.Config{})
			dst := filepath.Join(t.TempDir(), "got")
			if err := os.WriteFile(dst, c.data[:row.before], 0o600); err != nil {
				t.Fatal(err)
			}
			var read bytes.Buffer
			var early int64 // bytes that had come when the first one was read
			var of fs.FileInfo
			progress := make(chan swarm.Progress, 1000)
			_, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{
				Peers:    []string{seed.Addr().String()},
				Progress: func(p swarm.Progress) { progress <- p },
				Read: func(r io.Reader, file fs.FileInfo) error {
					of = file
					if _, err := io.CopyN(&read, r, 1); err != nil {
						return err
					}
					early = (<-progress).Done
					_, err := io.Copy(&read, r)
					return err
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(read.Bytes(), c.data) {
				t.Errorf("%d bytes were read, which are not the content", read.Len())
			}
			if row.super && early == int64(len(c.data)) {
				t.Error("nothing was read before everything had come")
			}
			c.check(t, dst)
			if is, err := os.Stat(dst); err != nil || !os.SameFile(is, of) {
				t.Errorf("it was another file that was read: %v", err)
			}
		})
	}
}

// A fetch that fails ends its reader, and one whose reader fails has failed.
func TestReaderAndFetchEndTogether(t *testing.T) {
	c := newContent(t, 1<<20)
	n := newNode(t, swarm.Config{})
	dst := filepath.Join(t.TempDir(), "got")

	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	var ended error
	_, err := n.Fetch(ctx, c.info, dst, swarm.FetchOptions{Read: func(r io.Reader, _ fs.FileInfo) error {
		cancel(gone)
		_, ended = io.Copy(io.Discard, r)
		return ended
	}})
	if !errors.Is(err, gone) || !errors.Is(ended, gone) {
		t.Errorf("the fetch ended with %v and its reader with %v, want both because of the context", err, ended)
	}

	seed := newSeed(t, c, swarm.Config{})
	tired := errors.New("tired")
	_, err = n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{
		Peers: []string{seed.Addr().String()},
		Read:  func(io.Reader, fs.FileInfo) error { return tired },
	})
	if !errors.Is(err, tired) {
		t.Errorf("fetch: %v, want what the reader said", err)
	}
}
