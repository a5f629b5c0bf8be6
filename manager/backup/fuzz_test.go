package backup

import (
	"bytes"
	"io"
	"testing"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/swarm"
)

// FuzzReadFrames: whoever has the key may have written anything.
func FuzzReadFrames(f *testing.F) {
	f.Add(frames(func(w *frameWriter) {
		w.value(kindHeader, Header{Format: frameFormat, Cluster: "c1"})
		_, _ = pieces{w, kindState}.Write([]byte("state"))
		w.blob("sha256:00", []byte("data"))
		w.value(kindMissing, swarm.Digest("sha256:01"))
		w.value(kindEnd, end{Index: 7, Blobs: 1, Missing: 1, Sum: w.sum.Sum(nil)})
	}))
	f.Add(frames(func(w *frameWriter) {
		w.value(kindHeader, Header{Format: frameFormat + 1})
		w.value(kindBlob, blobHeader{Size: 1 << 40})
	}))
	f.Add([]byte{kindHeader, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		to := &counting{}
		summary, err := readFrames(bytes.NewReader(data), to)
		if err != nil {
			return
		}
		if to.begun != 1 || to.states != 1 || to.blobs != summary.Blobs || to.bytes > len(data) {
			t.Fatalf("%+v of %d bytes: %+v", to, len(data), summary)
		}
	})
}

func frames(write func(*frameWriter)) []byte {
	var b bytes.Buffer
	write(newFrameWriter(&b))
	return b.Bytes()
}

// counting notes what a backup gave.
type counting struct{ begun, states, blobs, bytes int }

func (c *counting) Begin(Header) error {
	c.begun++
	return nil
}

func (c *counting) State(from io.Reader) error {
	c.states++
	n, err := io.Copy(io.Discard, from)
	c.bytes += int(n)
	return err
}

func (c *counting) Blob(_ swarm.Digest, data []byte) error {
	c.blobs++
	c.bytes += len(data)
	return nil
}

// FuzzRead: a file from anywhere is taken whole or not at all.
func FuzzRead(f *testing.F) {
	key := Key{kind: kindKey, secret: make([]byte, seal.UnlockKeySize)}
	var file bytes.Buffer
	sealed, err := newSealedWriter(&file, key)
	if err != nil {
		f.Fatal(err)
	}
	w := newFrameWriter(sealed)
	w.value(kindHeader, Header{Format: frameFormat})
	w.value(kindEnd, end{Sum: w.sum.Sum(nil)})
	if err := sealed.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Read(bytes.NewReader(data), key, nil); err != nil {
			return
		}
		if _, err := Read(bytes.NewReader(data[:len(data)-1]), key, nil); err == nil {
			t.Fatalf("%x was taken without its last byte", data)
		}
	})
}
