package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"shoal/internal/fault"
	"shoal/manifest"
)

// ReadReports reads the reports of a file that came from machines without a network: one
// after the other, as many as there are; files can be joined. It believes none of them.
func ReadReports(r io.Reader) ([][]byte, error) {
	var envs [][]byte
	bounded := &rationed{r: r}
	dec := json.NewDecoder(bounded)
	for {
		var raw json.RawMessage
		bounded.left = 4 * manifest.MaxReport
		err := dec.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return envs, nil
		}
		if err != nil {
			code := fault.Malformed
			if errors.Is(err, fault.TooLarge) {
				code = fault.TooLarge
			}
			return nil, fault.New(code, "report %d of the file: %w", len(envs)+1, err)
		}
		if len(envs) >= MaxAgents {
			return nil, fault.New(fault.TooLarge, "the file has more than %d reports", MaxAgents)
		}
		if len(raw) > manifest.MaxReport {
			return nil, fault.New(fault.TooLarge, "report %d of the file is larger than %d bytes", len(envs)+1, manifest.MaxReport)
		}
		if e := bytes.TrimSpace(raw); len(e) == 0 || e[0] != '{' {
			return nil, fault.New(fault.Malformed, "report %d of the file is none", len(envs)+1)
		}
		envs = append(envs, bytes.Clone(raw))
	}
}

// rationed reads no more than left: a decoder keeps what it reads until a value is whole.
type rationed struct {
	r    io.Reader
	left int
}

func (r *rationed) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, fault.New(fault.TooLarge, "it is larger than %d bytes", manifest.MaxReport)
	}
	n, err := r.r.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}
