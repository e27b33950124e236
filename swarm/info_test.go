package swarm

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
)

// refTo is the Ref of an info dict that a signer took for good.
func refTo(b []byte, length int64) Ref {
	return Ref{Infohash: sha1.Sum(b), InfoSHA256: sha256.Sum256(b), Length: length}
}

// dict is an info dict of one piece of 20 bytes, with members in the order given; "" is
// left out.
func dict(members ...string) []byte {
	return []byte("d" + strings.Join(members, "") + "e")
}

const (
	okLength = "6:lengthi20e"
	okName   = "4:name5:hello"
	okPiece  = "12:piece lengthi65536e"
	okPieces = "6:pieces20:aaaaaaaaaaaaaaaaaaaa"
)

func TestOpenInfo(t *testing.T) {
	name := func(s string) []byte {
		return dict(okLength, fmt.Sprintf("4:name%d:%s", len(s), s), okPiece, okPieces)
	}
	length := func(n, pieceLength int64, pieces int) []byte {
		return dict(fmt.Sprintf("6:lengthi%de", n), okName, fmt.Sprintf("12:piece lengthi%de", pieceLength),
			fmt.Sprintf("6:pieces%d:%s", pieces*20, strings.Repeat("a", pieces*20)))
	}
	for _, test := range []struct {
		name string
		info []byte
		ok   bool
	}{
		{"good", dict(okLength, okName, okPiece, okPieces), true},
		{"good-private", dict(okLength, okName, okPiece, okPieces, "7:privatei1e"), true},
		{"largest-number-of-pieces", length(8192*65536, 65536, 8192), true},
		{"largest-pieces", length(1<<24+1, 1<<24, 2), true},
		{"smallest-pieces", length(1<<14+1, 1<<14, 2), true},
		{"name-in-another-script", name("версия 2.bin"), true},

		{"empty", nil, false},
		{"not-a-dict", []byte("le"), false},
		{"no-end", []byte("d" + okLength + okName + okPiece + okPieces), false},
		{"bytes-after-the-end", append(dict(okLength, okName, okPiece, okPieces), 'e'), false},
		{"members-out-of-order", dict(okName, okLength, okPiece, okPieces), false},
		{"member-twice", dict(okLength, okLength, okName, okPiece, okPieces), false},
		{"integer-with-leading-zero", dict("6:lengthi020e", okName, okPiece, okPieces), false},
		{"integer-minus-zero", dict("6:lengthi-0e", okName, okPiece, okPieces), false},
		{"integer-negative", dict("6:lengthi-20e", okName, okPiece, okPieces), false},
		{"integer-beyond-64-bits", dict("6:lengthi99999999999999999999e", okName, okPiece, okPieces), false},
		{"string-length-with-leading-zero", dict("06:lengthi20e", okName, okPiece, okPieces), false},
		{"string-longer-than-the-dict", dict(okLength, "4:name999:hello", okPiece, okPieces), false},
		{"string-length-enormous", dict(okLength, "4:name9223372036854775807:hello", okPiece, okPieces), false},

		{"no-length", dict(okName, okPiece, okPieces), false},
		{"no-name", dict(okLength, okPiece, okPieces), false},
		{"no-pieces", dict(okLength, okName, okPiece), false},
		{"no-piece-length", dict(okLength, okName, okPieces), false},
		{"several-files", dict("5:filesld6:lengthi20e4:pathl1:aeee", okName, okPiece, okPieces), false},
		{"path", dict(okLength, okName, "4:pathl1:ae", okPiece, okPieces), false},
		{"attr-symlink", dict("4:attr1:l", okLength, okName, okPiece, okPieces), false},
		{"symlink-path", dict(okLength, okName, okPiece, okPieces, "12:symlink pathl1:ae"), false},
		{"version-2", dict("9:file treede", okLength, "12:meta versioni2e", okName, okPiece, okPieces), false},
		{"second-name", dict(okLength, okName, "10:name.utf-82:..", okPiece, okPieces), false},
		{"private-0", dict(okLength, okName, okPiece, okPieces, "7:privatei0e"), false},
		{"private-2", dict(okLength, okName, okPiece, okPieces, "7:privatei2e"), false},

		{"length-0", length(0, 65536, 0), false},
		{"too-few-pieces", length(65537, 65536, 1), false},
		{"too-many-pieces", length(65536, 65536, 2), false},
		{"pieces-not-whole-hashes", dict(okLength, okName, okPiece, "6:pieces19:aaaaaaaaaaaaaaaaaaa"), false},
		{"more-than-8192-pieces", length(8192*65536+1, 65536, 8193), false},
		{"length-that-overflows-the-count", length(1<<62, 65536, 1), false},
		{"piece-length-0", length(20, 0, 1), false},
		{"piece-length-too-small", length(20, 1<<14-1, 1), false},
		{"piece-length-too-large", length(20, 1<<24+1, 1), false},

		{"name-empty", name(""), false},
		{"name-dot", name("."), false},
		{"name-dot-dot", name(".."), false},
		{"name-up", name("../x"), false},
		{"name-absolute", name("/etc/x"), false},
		{"name-with-directory", name("a/b"), false},
		{"name-with-drive", name(`C:\x`), false},
		{"name-backslash", name(`a\b`), false},
		{"name-stream", name("a:b"), false},
		{"name-device", name("CON"), false},
		{"name-device-with-extension", name("nul.txt"), false},
		{"name-device-port", name("COM1"), false},
		{"name-device-superscript", name("LPT¹.x"), false},
		{"name-nul", name("a\x00b"), false},
		{"name-newline", name("a\nb"), false},
		{"name-escape", name("a\x1b[2Jb"), false},
		{"name-not-utf8", name("a\xffb"), false},
		{"name-reversed-for-the-eye", name("a\u202egnp.exe"), false},
		{"name-trailing-dot", name("a."), false},
		{"name-trailing-space", name("a "), false},
		{"name-too-long", name(strings.Repeat("a", 256)), false},
		{"name-none", name("-"), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			// The length is what the dict says, as far as that can be read.
			var d struct {
				Length int64 `bencode:"length"`
			}
			_ = bencode.Unmarshal(test.info, &d)
			i, err := OpenInfo(test.info, refTo(test.info, d.Length))
			if test.ok && err != nil {
				t.Fatal(err)
			}
			if !test.ok && !errors.Is(err, ErrBadInfo) {
				t.Fatalf("got %+v, %v, want ErrBadInfo", i, err)
			}
		})
	}
}

func TestOpenInfoNotAsSigned(t *testing.T) {
	b := dict(okLength, okName, okPiece, okPieces)
	good := refTo(b, 20)
	for name, change := range map[string]func(*Ref){
		"other-infohash": func(r *Ref) { r.Infohash[0] ^= 1 },
		"other-sha256":   func(r *Ref) { r.InfoSHA256[31] ^= 1 },
		"other-length":   func(r *Ref) { r.Length++ },
	} {
		want := good
		change(&want)
		if _, err := OpenInfo(b, want); !errors.Is(err, ErrBadInfo) {
			t.Errorf("%s: got %v, want ErrBadInfo", name, err)
		}
	}
	long := append(bytes.Clone(b), make([]byte, MaxInfoSize)...)
	if _, err := OpenInfo(long, refTo(long, 20)); !errors.Is(err, ErrBadInfo) {
		t.Errorf("too-long: got %v, want ErrBadInfo", err)
	}
	i, err := OpenInfo(b, good)
	if err != nil {
		t.Fatal(err)
	}
	b[1] = 'x' // the caller's bytes are the caller's
	if again, err := OpenInfo(i.Bytes(), good); err != nil || again.Name() != "hello" {
		t.Errorf("the bytes kept are not those checked: %v", err)
	}
}

func TestPieceLength(t *testing.T) {
	for _, test := range []struct {
		length, pieceLength int64
		pieces              int
	}{
		{1, 32 << 10, 1},
		{32 << 20, 32 << 10, 1024},
		{32<<20 + 1, 64 << 10, 513},
		{64 << 20, 64 << 10, 1024},
		{64<<20 + 1, 128 << 10, 513},
		{16 << 30, 16 << 20, 1024},
		{16<<30 + 1, 16 << 20, 1025},
		{128 << 30, 16 << 20, 8192},
	} {
		n := pieceLengthFor(test.length)
		if n != test.pieceLength || pieceCount(test.length, n) != test.pieces {
			t.Errorf("%d bytes have %d pieces of %d, want %d of %d", test.length, pieceCount(test.length, n), n, test.pieces, test.pieceLength)
		}
	}
}

func TestBuildInfoRefuses(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name   string
		ctx    context.Context
		file   string
		data   string
		length int64
		want   error
	}{
		{"shorter-than-said", t.Context(), "a", "four", 5, ErrContent},
		{"longer-than-said", t.Context(), "a", "four", 3, ErrContent},
		{"empty", t.Context(), "a", "", 0, nil},
		{"too-long-for-any-torrent", t.Context(), "a", "", 8192<<24 + 1, nil},
		{"unsafe-name", t.Context(), "../a", "four", 4, nil},
		{"cancelled", cancelled, "a", "four", 4, context.Canceled},
	} {
		_, err := BuildInfo(test.ctx, strings.NewReader(test.data), test.file, test.length, false)
		if err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
}

// What is built here is what other implementations build and read.
func TestInfoIsOrdinary(t *testing.T) {
	data := bytes.Repeat([]byte("shoal"), 50000)
	i, err := BuildInfo(t.Context(), bytes.NewReader(data), "a b.bin", int64(len(data)), true)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := OpenInfo(i.Bytes(), i.Ref()); err != nil || again.Ref() != i.Ref() {
		t.Errorf("cannot be opened: %v", err)
	}
	var mi metainfo.MetaInfo
	b := i.Metainfo([]string{"http://a/announce", "udp://b:1"}, []string{"http://c/d"})
	if err := bencode.Unmarshal(b, &mi); err != nil {
		t.Fatal(err)
	}
	info, err := mi.UnmarshalInfo()
	if err != nil {
		t.Fatal(err)
	}
	if mi.HashInfoBytes() != i.Ref().Infohash || info.Name != "a b.bin" || info.TotalLength() != int64(len(data)) ||
		info.NumPieces() != i.Pieces() || info.Private == nil || !*info.Private {
		t.Errorf("read back as %+v", info)
	}
	if mi.Announce != "http://a/announce" || len(mi.AnnounceList) != 2 || len(mi.UrlList) != 1 || mi.CreationDate != 0 {
		t.Errorf("read back as %+v", mi)
	}
	if canonical, err := bencode.Marshal(mi); err != nil || !bytes.Equal(canonical, b) {
		t.Errorf("not canonical: %q", b[:100])
	}
	magnet, err := metainfo.ParseMagnetUri(i.Magnet([]string{"http://a/announce?x=1&y=2"}, []string{"http://c/d e"}))
	if err != nil {
		t.Fatal(err)
	}
	if magnet.InfoHash != i.Ref().Infohash || magnet.DisplayName != "a b.bin" ||
		magnet.Trackers[0] != "http://a/announce?x=1&y=2" || magnet.Params.Get("ws") != "http://c/d e" {
		t.Errorf("magnet read back as %+v", magnet)
	}
}

func FuzzOpenInfo(f *testing.F) {
	f.Add(dict(okLength, okName, okPiece, okPieces))
	f.Add(dict(okLength, okName, okPiece, okPieces, "7:privatei1e"))
	f.Add([]byte("d4:name"))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := parseInfo(b)
		if err != nil {
			return
		}
		// What is accepted means the same to the engine, in every member.
		var info metainfo.Info
		if err := bencode.Unmarshal(b, &info); err != nil {
			t.Fatalf("the engine cannot read it: %v", err)
		}
		if info.Name != i.Name() || info.NameUtf8 != "" || info.TotalLength() != i.Ref().Length || info.PieceLength != i.PieceLength() ||
			info.NumPieces() != i.Pieces() || len(info.Files) != 0 || info.HasV2() || (info.Private != nil) != i.private {
			t.Fatalf("the engine reads %+v", info)
		}
		if again, err := bencode.Marshal(&info); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("not canonical: the engine writes %q, %v", again, err)
		}
	})
}
