package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// entry is a file or, with a name that ends in a slash, a directory of an archive.
type entry struct {
	name    string
	mode    fs.FileMode
	owner   int // uid and gid
	content []byte
}

// archive writes what a person unpacks: a tar, or a zip for Windows.
func (r *release) archive(b build) error {
	top, program := r.name(b, "/"), "shoal"
	if b.os == "windows" {
		program = "shoal.exe"
	}
	files := []entry{{name: top, mode: 0o755}}
	for _, f := range []struct {
		name, from string
		mode       fs.FileMode
	}{{program, b.path, 0o755}, {"LICENSE", "LICENSE", 0o644}, {"README.md", "README.md", 0o644}} {
		content, err := os.ReadFile(f.from)
		if err != nil {
			return err
		}
		files = append(files, entry{name: top + f.name, mode: f.mode, content: content})
	}
	if b.os == "windows" {
		return r.create(r.name(b, ".zip"), func(w io.Writer) error { return writeZip(w, files, r.time) })
	}
	return r.create(r.name(b, ".tar.gz"), func(w io.Writer) error { return writeTarGz(w, files, r.time) })
}

// create writes the file called name.
func (r *release) create(name string, fill func(io.Writer) error) error {
	f, err := os.Create(filepath.Join(r.dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := fill(f); err != nil {
		return err
	}
	return f.Close()
}

func writeTarGz(w io.Writer, files []entry, at time.Time) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	if err := writeTar(z, files, at); err != nil {
		return err
	}
	return z.Close()
}

func writeTar(w io.Writer, files []entry, at time.Time) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: f.name, Mode: int64(f.mode), Uid: f.owner, Gid: f.owner,
			Size: int64(len(f.content)), ModTime: at, Format: tar.FormatUSTAR,
		}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(f.content); err != nil {
			return err
		}
	}
	return t.Close()
}

func writeZip(w io.Writer, files []entry, at time.Time) error {
	z := zip.NewWriter(w)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: at}
		h.SetMode(f.mode)
		if strings.HasSuffix(f.name, "/") {
			h.Method = zip.Store
			h.SetMode(f.mode | fs.ModeDir)
		}
		e, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := e.Write(f.content); err != nil {
			return err
		}
	}
	return z.Close()
}
