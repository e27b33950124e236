package holder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"shoal/agent/acquire"
	"shoal/agent/cache"
	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/swarm"
)

// Request asks for a channel's artifact as a file.
type Request struct {
	Platform manifest.Platform
	// Out is the file to write, or a directory for one with the artifact's name.
	Out string
	// Seed gives the file to peers until ctx ends.
	Seed bool
	// Tell is called with how far it is, from one goroutine at a time. It may be nil.
	Tell func(r Fetched, p acquire.Progress)
	// Done is called once the file is there; with Seed, before it is given. It must be set.
	Done func(Fetched) error
}

// Fetched is a file that was fetched, or was there already.
type Fetched struct {
	App      string           `json:"app"`
	Channel  string           `json:"channel"`
	Version  string           `json:"version"`
	Epoch    int64            `json:"epoch"`
	Sequence int64            `json:"sequence"`
	Expires  time.Time        `json:"expires"`
	Artifact string           `json:"artifact"`
	Platform string           `json:"platform"`
	Length   int64            `json:"length"`
	SHA256   manifest.Digest  `json:"sha256"`
	Out      string           `json:"out"`
	Already  bool             `json:"already"` // it was there, and nothing was fetched
	Bytes    Bytes            `json:"bytes"`
	Seconds  float64          `json:"seconds"`
	Note     string           `json:"note,omitempty"` // why no source was asked for a newer one
	Events   []manifest.Event `json:"events"`
}

// Bytes says where the bytes of a file came from.
type Bytes struct {
	LAN     int64 `json:"lan"`
	WAN     int64 `json:"wan"`
	Origin  int64 `json:"origin"`
	Webseed int64 `json:"webseed"`
}

// Fetch writes the artifact that the one channel of c offers for a platform to a file:
// whole and verified, or what was there stays. c.Dir is chosen beside the file, so that
// what has come of it outlives this process; it is gone once the file is there.
func Fetch(ctx context.Context, c Config, r Request) error {
	out, err := filepath.Abs(r.Out)
	if err != nil {
		return fault.New(fault.Usage, "%q: %w", r.Out, err)
	}
	fi, err := os.Stat(out)
	within := err == nil && fi.IsDir()
	if err == nil && !within && !fi.Mode().IsRegular() {
		return fault.New(fault.Usage, "%q is there and is not a file", out)
	}
	dir, name := out, c.Channels[0].App
	if !within {
		dir, name = filepath.Split(out)
	}
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return fault.New(fault.NotFound, "the directory %q is not there", dir).Do("make it first, or choose another --out")
	}
	c.Dir = filepath.Join(dir, "."+name+".shoal-fetch")
	if err := ours(c.Dir); err != nil {
		return err
	}
	h, err := Open(ctx, c)
	if err != nil {
		return err
	}
	defer func() { h.Close() }()
	f := &fetching{h: h, r: r, out: out, within: within, began: time.Now()}
	if err := f.run(ctx, c.Channels[0]); err != nil {
		kept, kerr := h.cache.Stored()
		if kerr != nil || slices.ContainsFunc(kept, func(f cache.File) bool { return f.Bytes > 0 }) {
			return err
		}
		return errors.Join(err, f.tidy())
	}
	if !r.Seed {
		return f.tidy()
	}
	if err := f.give(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return f.tidy()
}

// ours makes sure that dir, if it is there, is a directory in which nobody else can write:
// it may be among files of others, as in /tmp, and what is verified in it must not be
// replaced before it has its name.
func ours(dir string) error {
	if err := os.Mkdir(dir, 0o700); !errors.Is(err, fs.ErrExist) {
		return nil // made, or what follows says why it cannot be
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return failure(err, "looking at %q", dir)
	}
	if !fi.IsDir() || !private(fi) {
		return fault.New(fault.Permission, "%q is there, and others could change what is in it", dir).
			Line("Nothing was fetched.").
			Do("remove it if nobody needs it, or choose another --out")
	}
	return nil
}

// fetching is one Fetch.
type fetching struct {
	h       *Holder
	r       Request
	out     string // the file, or while within the directory it goes into
	within  bool
	began   time.Time
	v       *manifest.Verified
	art     *manifest.Artifact
	fetched Fetched
}

func (f *fetching) run(ctx context.Context, ch manifest.Channel) error {
	v, events, err := f.h.Check(ctx, ch)
	if err != nil && (v == nil || fault.CodeOf(err) != fault.Unreachable) {
		return err
	}
	f.v = v
	m := v.Manifest
	f.fetched = Fetched{App: m.App, Channel: m.Channel, Version: m.Release.Version, Epoch: m.Epoch, Sequence: m.Sequence,
		Expires: m.Expires, Events: events, Platform: f.r.Platform.String()}
	if f.fetched.Events == nil {
		f.fetched.Events = []manifest.Event{}
	}
	if err != nil {
		f.fetched.Note = "no source answers; this is the newest release that this machine has heard of"
	}
	if f.art, err = v.Select(f.r.Platform); err != nil {
		return err
	}
	if f.within {
		f.out = filepath.Join(f.out, f.art.Name)
	}
	f.fetched.Artifact, f.fetched.Length, f.fetched.SHA256, f.fetched.Out = f.art.Name, f.art.Length, f.art.SHA256, f.out
	if err := f.h.Authorize(ch, f.art.SHA256); err != nil {
		return err
	}
	if f.there(ctx) {
		f.fetched.Already = true
	} else if err := f.fetch(ctx); err != nil {
		return err
	}
	f.fetched.Seconds = time.Since(f.began).Seconds()
	return f.r.Done(f.fetched)
}

// there reports whether the file has the content already.
func (f *fetching) there(ctx context.Context) bool {
	if fi, err := os.Lstat(f.out); err != nil || !fi.Mode().IsRegular() {
		return false // a pipe would be waited for
	}
	file, err := os.Open(f.out)
	if err != nil {
		return false
	}
	defer file.Close()
	return cache.Check(ctx, file, f.art.SHA256, f.art.Length) == nil
}

func (f *fetching) fetch(ctx context.Context) error {
	file, _, err := f.h.Get(ctx, f.v, f.art, func(p acquire.Progress) {
		f.fetched.Bytes = countBytes(p.Bytes)
		if f.r.Tell != nil {
			f.r.Tell(f.fetched, p)
		}
	})
	if err != nil {
		var e *fault.Error
		if errors.As(err, &e) && e.Code == fault.Unreachable {
			e.Line("What came is kept in %s; the same command goes on from there.", f.h.c.Dir)
		}
		return err
	}
	defer file.Close()
	if mode, err := strconv.ParseUint(f.art.Mode, 8, 32); err == nil {
		if err := file.Chmod(fs.FileMode(mode).Perm()); err != nil {
			return failure(err, "writing %q", f.out)
		}
	}
	if err := file.Sync(); err != nil {
		return failure(err, "writing %q", f.out)
	}
	if err := durable.Rename(f.h.Path(f.art.SHA256), f.out); err != nil {
		return failure(err, "writing %q", f.out)
	}
	return nil
}

// give serves the file from where it is now.
func (f *fetching) give(ctx context.Context) error {
	p, ok := f.art.Usable()
	if !ok {
		return nil // only what was fetched through a payload gets here
	}
	err := f.h.Give(ctx, p, f.out)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// tidy removes the directory beside the file. It is ours, by its name and its lock.
func (f *fetching) tidy() error {
	if err := os.RemoveAll(f.h.c.Dir); err != nil {
		return failure(err, "removing %q", f.h.c.Dir)
	}
	return nil
}

func countBytes(b swarm.Bytes) Bytes {
	return Bytes{LAN: b.LAN, WAN: b.WAN, Origin: b.Origin, Webseed: b.Webseed}
}

func failure(err error, doing string, args ...any) error {
	code := fault.IO
	switch {
	case errors.Is(err, fs.ErrPermission):
		code = fault.Permission
	case cache.IsNoSpace(err):
		code = fault.NoSpace
	}
	return fault.New(code, "%s: %w", fmt.Sprintf(doing, args...), err)
}
