package manifest_test

import (
	"testing"

	mt "shoal/manifest/manifesttest"
)

// BenchmarkVerifyManifest takes a manifest that 2 of 3 keys have signed through every
// check there is: signatures, strict JSON, destination, order, dates and fields.
func BenchmarkVerifyManifest(b *testing.B) {
	f := mt.New(b)
	trust, env := f.Trust(), f.Manifest(mt.Stable, 42)
	b.ReportAllocs()
	for b.Loop() {
		cycle, err := trust.Begin()
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := cycle.Manifest(mt.Stable, env); err != nil {
			b.Fatal(err)
		}
	}
}
