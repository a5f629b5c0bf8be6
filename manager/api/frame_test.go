package api

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"

	"github.com/gitswarm/gitswarm/swarm"
)

func TestFramesArriveAsTheyWereSent(t *testing.T) {
	code, negative := 137, -1
	for _, sent := range []swarm.ExecFrame{
		{Stdin: []byte("in")}, {EOF: true}, {Rows: 24, Cols: 80},
		{Stdout: []byte{0, 255}}, {Stderr: []byte("err")}, {Exit: &code}, {Exit: &negative},
	} {
		var wire bytes.Buffer
		if err := NewFrames(&wire, &wire).Write(sent); err != nil {
			t.Fatal(err)
		}
		got, err := NewFrames(&wire, &wire).Read()
		if err != nil || !reflect.DeepEqual(got, sent) {
			t.Errorf("sent %+v, got %+v, %v", sent, got, err)
		}
	}
}

func TestLongOutputIsSentInFrames(t *testing.T) {
	var wire bytes.Buffer
	long := bytes.Repeat([]byte("x"), 3*maxFrame+1)
	frames := NewFrames(&wire, &wire)
	if err := frames.Write(swarm.ExecFrame{Stdout: long}); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for {
		frame, err := frames.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, frame.Stdout...)
	}
	if !bytes.Equal(got, long) {
		t.Errorf("got %d bytes, sent %d", len(got), len(long))
	}
}

func TestAFailureEndsTheConversationWithItsRemedy(t *testing.T) {
	var wire bytes.Buffer
	frames := NewFrames(&wire, &wire)
	if err := frames.Fail(Conflict("the task has ended", "gitswarm ps")); err != nil {
		t.Fatal(err)
	}
	_, err := frames.Read()
	var failed *Failure
	if !errors.As(err, &failed) || failed.Remedy != "gitswarm ps" {
		t.Errorf("read %v", err)
	}
}

func TestRefusesFramesThatAreTooLongOrUnknown(t *testing.T) {
	for _, wire := range []string{
		"\x01\x00\x01\x00\x01", // 65,537 bytes announced
		"\x01\xff\xff\xff\xff",
		"\x09\x00\x00\x00\x00",
		"\x03\x00\x00\x00\x01x",
		"\x06\x00\x00\x00\x02xx",
		"\x01\x00\x00\x00\x05cut",
		"\x01\x00",
	} {
		if frame, err := NewFrames(bytes.NewReader([]byte(wire)), io.Discard).Read(); err == nil || errors.Is(err, io.EOF) && err == io.EOF {
			t.Errorf("%q was read as %+v, %v", wire, frame, err)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x02hi\x06\x00\x00\x00\x04\x00\x00\x00\x01"))
	f.Add([]byte("\x07\x00\x00\x00\x02{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		frames := NewFrames(bytes.NewReader(data), io.Discard)
		for {
			frame, err := frames.Read()
			if err != nil {
				return
			}
			var wire bytes.Buffer
			if err := NewFrames(nil, &wire).Write(frame); err != nil {
				t.Fatal(err)
			}
			again, err := NewFrames(&wire, nil).Read()
			if wire.Len() == 0 && err == nil && !reflect.DeepEqual(frame, again) {
				t.Errorf("read %+v, wrote and read %+v", frame, again)
			}
		}
	})
}
