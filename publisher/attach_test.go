package publisher

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
)

func TestAttachmentsAreSignedWithTheRelease(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	req := f.request("1.0.0", "a build", f.release...)
	req.Attachments = []Attach{
		{Name: "sbom.cdx.json", Path: f.build("bom", "what is in it")},
		{Name: "provenance.json", Path: f.build("origin", "where it is from")},
	}
	res, err := f.open().Publish(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	v, err := f.agent()
	if err != nil {
		t.Fatalf("an agent refuses what was published: %v", err)
	}
	want := []manifest.Attachment{
		{Name: "provenance.json", Length: 16, SHA256: manifest.Sum([]byte("where it is from"))},
		{Name: "sbom.cdx.json", Length: 13, SHA256: manifest.Sum([]byte("what is in it"))},
	}
	if diff := cmp.Diff(want, v.Manifest.Attachments); diff != "" {
		t.Errorf("attachments (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(attachedInfos(v.Manifest), res.Attached); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	for name, content := range map[string]string{want[0].Name: "where it is from", want[1].Name: "what is in it"} {
		if got := f.read(tree.Data(manifest.Sum([]byte(content)))); string(got) != content {
			t.Errorf("the bytes of %s are %q", name, got)
		}
	}

	publish := func(change func(*PublishRequest)) *PublishResult {
		t.Helper()
		again := req
		if change != nil {
			change(&again)
		}
		res, err := f.open().Publish(t.Context(), again)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	f.now = f.now.Add(time.Hour)
	if res := publish(func(r *PublishRequest) { r.Attachments = []Attach{req.Attachments[1], req.Attachments[0]} }); !res.Already {
		t.Error("the same attachments in another order are another release")
	}
	data := f.path(tree.Data(want[1].SHA256))
	if err := os.Remove(data); err != nil {
		t.Fatal(err)
	}
	_, err = f.open().Refresh(t.Context(), AgainRequest{Channel: stable, Keys: with(f.release...)})
	if !strings.Contains(fmt.Sprint(err), "has not got the files") {
		t.Errorf("a release is refreshed whose attachment is lost: %v", err)
	}
	if res := publish(nil); !res.Already {
		t.Error("a second publish is another release")
	}
	if _, err := os.Stat(data); err != nil {
		t.Errorf("a second publish does not put back what the disk lost: %v", err)
	}
	if _, err := f.open().Refresh(t.Context(), AgainRequest{Channel: stable, Keys: with(f.release...)}); err != nil {
		t.Fatal(err)
	}
	if v, err = f.agent(); err != nil || len(v.Manifest.Attachments) != 2 || v.Manifest.Sequence != 2 {
		t.Errorf("refreshed: %+v, %v", v, err)
	}
	f.build("bom", "what is in it, corrected")
	if res := publish(nil); res.Already || res.Sequence != 3 {
		t.Errorf("another bill of materials is not another release: %+v", res)
	}
	if res := publish(func(r *PublishRequest) { r.Attachments = nil }); res.Already || len(res.Attached) != 0 {
		t.Errorf("without attachments: %+v", res)
	}
}

func TestAttachmentsThatAreRefused(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	bom := f.build("bom", "what is in it")
	for _, row := range []struct {
		name   string
		attach []Attach
		code   fault.Code
	}{
		{"a-path-as-name", []Attach{{"../sbom.json", bom}}, fault.UnsafePath},
		{"a-device-as-name", []Attach{{"con.json", bom}}, fault.UnsafePath},
		{"no-name", []Attach{{"", bom}}, fault.UnsafePath},
		{"two-of-one-name", []Attach{{"sbom.json", bom}, {"sbom.json", bom}}, fault.Usage},
		{"more-than-a-manifest-takes", make([]Attach, 17), fault.Usage},
		{"no-such-file", []Attach{{"sbom.json", bom + "-2"}}, fault.NotFound},
		{"a-directory", []Attach{{"sbom.json", f.dist}}, fault.Usage},
		{"an-empty-file", []Attach{{"sbom.json", f.build("empty", "")}}, fault.Malformed},
	} {
		t.Run(row.name, func(t *testing.T) {
			req := f.request("1.0.0", "a build", f.release...)
			req.Attachments = row.attach
			_, err := f.open().Publish(t.Context(), req)
			if got := fault.CodeOf(err); got != row.code {
				t.Errorf("code %s (%v), want %s", got, err, row.code)
			}
		})
	}
	if _, err := os.Stat(f.path(tree.Manifest(stable))); err == nil {
		t.Error("something was published")
	}
	most := f.request("1.0.0", "a build", f.release...)
	for i := range 16 {
		most.Attachments = append(most.Attachments, Attach{fmt.Sprintf("part-%d.json", i), bom})
	}
	if _, err := f.open().Publish(t.Context(), most); err != nil {
		t.Errorf("as many as a manifest takes: %v", err)
	}
}

func TestAnEnvelopeBringsItsAttachments(t *testing.T) {
	f := newFleet(t, 2, "release-1@acme", "release-2@acme")
	req := f.request("1.0.0", "a build", f.release[0])
	req.Attachments = []Attach{{Name: "sbom.json", Path: f.build("bom", "what is in it")}}
	_, err := f.open().Publish(t.Context(), req)
	if fault.CodeOf(err) != fault.Threshold {
		t.Fatalf("one of two signatures: %v", err)
	}
	build := req.Files[0].Path
	if next := fmt.Sprint(err.(*fault.Error).Next); !strings.Contains(next, "--key REF "+build+" "+req.Attachments[0].Path) {
		t.Errorf("the next signer is told %s", next)
	}
	env := EnvelopeRequest{
		Envelope: filepath.Join(f.dist, "acme-stable-1.1.env.json"), Files: []string{build}, Keys: with(f.release[1]),
	}
	if _, err := f.open().PublishEnvelope(t.Context(), env); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("without the attachment: %v", err)
	}
	forged := f.build("forged", "what is IN it") // of the same length
	env.Files = []string{build, forged}
	if _, err := f.open().PublishEnvelope(t.Context(), env); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("with another file of its length: %v", err)
	}
	env.Files = append(env.Files, req.Attachments[0].Path)
	res, err := f.open().PublishEnvelope(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Attached) != 1 || string(f.read(tree.Data(res.Attached[0].SHA256))) != "what is in it" {
		t.Errorf("published %+v", res.Attached)
	}
}

func TestReleasesPageListsWhatIsAttached(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	req := f.request("1.0.0", "a build", f.release...)
	req.Attachments = []Attach{{Name: "sbom.cdx.json", Path: f.build("bom", "what is in it")}}
	if _, err := f.open().Publish(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	w := watch(t, f)
	sum := manifest.Sum([]byte("what is in it")).String()
	for _, page := range []string{"/releases", "/api/v1/releases"} {
		if _, body := w.request(page, ""); !strings.Contains(body, "sbom.cdx.json") || !strings.Contains(body, sum) {
			t.Errorf("%s does not show the name and the hash %s", page, sum)
		}
	}
	if _, body := w.request("/data/"+sum, ""); body != "what is in it" {
		t.Errorf("where the page leads is %q", body)
	}
}
