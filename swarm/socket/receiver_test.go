package socket

import (
	"bytes"
	"net"
	"testing"
)

// record is a TLS record with so many bytes after its header.
func record(n int) []byte {
	return append([]byte{0x17, 3, 3, byte(n >> 8), byte(n)}, make([]byte, n)...)
}

func TestWhatIsAwaited(t *testing.T) {
	const k = 1 << 10
	full := record(16*k + recordExtra)
	for _, row := range []struct {
		name   string
		sealed bool
		passed []byte // in reads of at most 5,000 bytes
		left   []int  // of the message, before each Read that follows
		want   []int  // what the kernel is told; 0 is nothing
	}{
		{"between-messages", false, nil, []int{0}, []int{0}},
		{"short-rest", false, nil, []int{leastAwaited - 1}, []int{0}},
		{"rest-of-a-message", false, nil, []int{10 * k}, []int{10 * k}},
		{"no-more-than-a-buffer-holds", false, nil, []int{900 * k}, []int{MostAwaited}},
		{"less-is-left", false, nil, []int{60 * k, 10 * k, 0}, []int{MostAwaited, 10 * k, 1}},
		{"a-little-more-is-left", false, nil, []int{10 * k, 15 * k}, []int{10 * k, 0}},
		{"much-more-is-left", false, nil, []int{10 * k, 20 * k}, []int{10 * k, 20 * k}},
		{"records-are-payload-in-the-open", false, full[:100], []int{0}, []int{0}},
		{"between-records", true, full, []int{10 * k}, []int{10 * k}},
		{"in-a-header", true, full[:3], []int{10 * k}, []int{10 * k}},
		{"in-a-record", true, full[:recordHeader+6*k], []int{0}, []int{10*k + recordExtra}},
		{"in-a-record-and-a-message", true, full[:recordHeader+6*k], []int{20 * k}, []int{14*k + recordExtra}},
		{"in-the-second-record", true, append(record(100), full[:recordHeader+6*k]...), []int{0}, []int{10*k + recordExtra}},
		{"in-an-empty-record", true, record(0), []int{0}, []int{0}},
	} {
		ours, theirs := net.Pipe()
		var told []int
		r := NewReceiver(ours, row.sealed)
		go func() { theirs.Write(append(bytes.Clone(row.passed), make([]byte, len(row.left))...)) }()
		for b := row.passed; len(b) > 0; {
			n, err := r.Read(make([]byte, min(5000, len(b))))
			if err != nil {
				t.Fatal(err)
			}
			b = b[n:]
		}
		r.await = func(n int) error { told = append(told, n); return nil }
		for i, left := range row.left {
			told = append(told[:0:0], 0)
			r.Left = left
			if _, err := r.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if got := told[len(told)-1]; got != row.want[i] {
				t.Errorf("%s: %d awaited before read %d, want %d", row.name, got, i, row.want[i])
			}
		}
		ours.Close()
		theirs.Close()
	}
}
