package store

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// FuzzDecodeEntry: no bytes in the log make a manager crash, and what is
// understood can be written again and applied.
func FuzzDecodeEntry(f *testing.F) {
	for _, c := range []Command{putSource("main"), accept("shop", "v1"), {At: noon, Lead: &Lead{Cluster: "c"}}, operate(Operate{Approve: "p"})} {
		entry, err := encodeEntry(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(entry)
	}
	f.Add([]byte{entryFormat, 0xa0})
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeEntry(data)
		if err != nil {
			return
		}
		db := newDB()
		if _, err := apply(db, 1, accept("shop", "v1")); err == nil {
			t.Fatal("there is no source yet")
		}
		_, _ = apply(db, 2, c)
		if _, err := encodeEntry(c); err != nil && !errors.Is(err, errNewer) {
			if year := c.At.Year(); year >= 0 && year < 10000 {
				t.Fatalf("%+v: %v", c, err)
			}
		}
		var b bytes.Buffer
		if err := writeState(&b, db.Txn(false)); err != nil {
			return // a time that no clock shows
		}
		if _, err := readState(&b); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzReadState: no bytes in a snapshot make a manager crash, and what is read
// is written again as it was.
func FuzzReadState(f *testing.F) {
	l := withShop(f)
	l.do(Command{At: noon.Add(time.Hour), Lead: &Lead{Cluster: "c"}})
	var seed bytes.Buffer
	if err := writeState(&seed, l.db.Txn(false)); err != nil {
		f.Fatal(err)
	}
	f.Add(seed.Bytes())
	f.Add([]byte{stateFormat, 2, 0xa1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		db, err := readState(bytes.NewReader(data))
		size, checked := checkState(bytes.NewReader(data))
		if err != nil {
			return
		}
		if checked != nil || size != int64(len(data)) {
			t.Fatalf("read, but not found whole: %d of %d bytes, %v", size, len(data), checked)
		}
		var first, second bytes.Buffer
		if writeState(&first, db.Txn(false)) != nil {
			return // a time that no clock shows
		}
		again, err := readState(bytes.NewReader(first.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if err := writeState(&second, again.Txn(false)); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("read and written again, it differs: %v", err)
		}
	})
}

// FuzzAccept: whatever another manager forwards, the leader goes on, and what
// it takes it can apply.
func FuzzAccept(f *testing.F) {
	s := newPlace(f).open(f)
	removed := swarm.NodeID("n1")
	for _, c := range []Command{putSource("main"), accept("shop", "v1"), {At: noon, Lead: &Lead{Cluster: "c"}}, {RemoveNode: &removed}} {
		entry, err := encodeEntry(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(entry)
	}
	f.Add([]byte{entryFormat, 0xa1, 0x18, 99, 0xa0})
	f.Fuzz(func(t *testing.T, entry []byte) {
		index, err := s.Accept(t.Context(), entry)
		if errors.Is(err, ErrFailed) || errors.Is(err, ErrUncertain) {
			t.Fatal(err)
		}
		if err == nil && s.View().Index() < index {
			t.Fatalf("accepted as %d, shown up to %d", index, s.View().Index())
		}
	})
}

// FuzzGreeting: whoever connects, reading what they say first ends, and takes
// no more than it says.
func FuzzGreeting(f *testing.F) {
	f.Add([]byte{greetingFormat, 3, 'a', 'b', 'c', 'd'})
	f.Add([]byte{greetingFormat, 0})
	f.Add([]byte{99, 200})
	f.Fuzz(func(t *testing.T, data []byte) {
		from := bytes.NewReader(data)
		incarnation, err := readGreeting(from)
		if err != nil {
			return
		}
		var back bytes.Buffer
		if err := writeGreeting(&back, incarnation); err != nil {
			t.Fatal(err)
		}
		if read := data[:len(data)-from.Len()]; !bytes.Equal(back.Bytes(), read) {
			t.Fatalf("%x was read as %x", read, back.Bytes())
		}
	})
}
