package publisher

import (
	"archive/tar"
	"bytes"
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"shoal/internal/fault"
	"shoal/manifest"
)

func tarOf(t *testing.T, h tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h.Typeflag = tar.TypeReg
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Nobody signs a tree that agents refuse.
func TestOnlySafeTreesAreSigned(t *testing.T) {
	good := tarOf(t, tar.Header{Name: "bin/acme", Mode: 0o755})
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name, file, content string
		want                fault.Code
	}{
		{"tar", "a-linux-amd64.tar", good, fault.OK},
		{"zstd", "b-linux-amd64.tar.zst", string(w.EncodeAll([]byte(good), nil)), fault.OK},
		{"climbs-out", "c-linux-amd64.tar", tarOf(t, tar.Header{Name: "../acme"}), fault.UnsafePath},
		{"setuid", "d-linux-amd64.tar", tarOf(t, tar.Header{Name: "acme", Mode: 0o4755}), fault.UnsafePath},
		{"no-archive", "e-linux-amd64.tar", "#!/bin/sh\n", fault.Malformed},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := newFleet(t, 1, "release-1@acme")
			path := f.build(r.file, r.content)
			req := f.request("1.0.0", "unused", f.release...)
			req.Kind, req.Files = manifest.KindTree, []File{{Path: path}}
			before := f.snapshot()
			res, err := f.open().Publish(context.Background(), req)
			if fault.CodeOf(err) != r.want {
				t.Fatalf("%v, want %s", err, r.want)
			}
			if err == nil {
				if m := f.stored(); m.Artifacts[0].Kind != manifest.KindTree || m.Artifacts[0].Mode != "0644" || len(res.Artifacts) != 1 {
					t.Errorf("%+v", m.Artifacts)
				}
				return
			}
			if diff := cmp.Diff(before, f.snapshot()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
