package gitsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
)

// Limits on a conversation with a server.
const (
	maxAdvertised = 64 << 20 // bytes of the list of branches
	dialTimeout   = 10 * time.Second
	stallTimeout  = time.Minute // without a byte
	syncTimeout   = 10 * time.Minute
)

// session is one conversation with git-upload-pack, in git's protocol version 0.
type session interface {
	// refs asks which branches there are.
	refs() (*packp.AdvRefs, error)
	// ask sends the request and returns the answer, unread. It is called once, after refs.
	ask(request []byte) (io.ReadCloser, error)
	close()
}

// fetchRequest asks for one commit without its history, given what is kept.
func fetchRequest(adv *packp.AdvRefs, want, have plumbing.Hash) (*packp.UploadPackRequest, []byte, error) {
	request := packp.NewUploadPackRequest()
	request.Wants = []plumbing.Hash{want}
	for _, c := range []capability.Capability{capability.OFSDelta, capability.Shallow, capability.NoProgress} {
		if adv.Capabilities.Supports(c) {
			if err := request.Capabilities.Set(c); err != nil {
				return nil, nil, err
			}
		}
	}
	if err := setCapabilities(request.Capabilities, adv.Capabilities, have.IsZero()); err != nil {
		return nil, nil, err
	}
	if adv.Capabilities.Supports(capability.Shallow) {
		request.Depth = packp.DepthCommits(1)
		if !have.IsZero() {
			request.Shallows = []plumbing.Hash{have}
		}
	}
	if !have.IsZero() {
		request.Haves = []plumbing.Hash{have}
	}

	var b bytes.Buffer
	if err := request.UploadRequest.Encode(&b); err != nil {
		return nil, nil, err
	}
	if err := request.UploadHaves.Encode(&b, false); err != nil {
		return nil, nil, err
	}
	if err := pktline.NewEncoder(&b).EncodeString("done\n"); err != nil {
		return nil, nil, err
	}
	return request, b.Bytes(), nil
}

// setCapabilities chooses the side band. Some servers answer only those who
// speak multi_ack, whose answers differ from plain ones only where something
// is had already.
func setCapabilities(chosen, offered *capability.List, nothingHad bool) error {
	var errs []error
	if offered.Supports(capability.Sideband64k) {
		errs = append(errs, chosen.Set(capability.Sideband64k))
	} else if offered.Supports(capability.Sideband) {
		errs = append(errs, chosen.Set(capability.Sideband))
	}
	if nothingHad && offered.Supports(capability.MultiACK) {
		errs = append(errs, chosen.Set(capability.MultiACK))
	}
	if !nothingHad && offered.Supports(capability.ThinPack) {
		errs = append(errs, chosen.Set(capability.ThinPack)) // without it git sends all files of the commit
	}
	if offered.Supports(capability.Agent) {
		errs = append(errs, chosen.Set(capability.Agent, "gitswarm"))
	}
	return errors.Join(errs...)
}

// packIn finds the pack in an answer.
func packIn(answer io.ReadCloser, request *packp.UploadPackRequest) (io.Reader, error) {
	response := packp.NewUploadPackResponse(request)
	if err := response.Decode(answer); err != nil {
		return nil, fmt.Errorf("the server refused to send the commit: %s", plain(err.Error(), 300))
	}
	switch {
	case request.Capabilities.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, response), nil
	case request.Capabilities.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, response), nil
	}
	return response, nil
}

// errStalled is the cause of a conversation's end when nothing came any more.
var errStalled = fmt.Errorf("the server sent nothing for %s", stallTimeout)

// liveReader ends its context when a Read waits longer than stallTimeout.
type liveReader struct {
	io.Reader
	timer *time.Timer
}

func keepLive(r io.Reader, cancel context.CancelCauseFunc) *liveReader {
	return &liveReader{Reader: r, timer: time.AfterFunc(stallTimeout, func() { cancel(errStalled) })}
}

func (r *liveReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil {
		r.timer.Stop()
	} else {
		r.timer.Reset(stallTimeout)
	}
	return n, err
}

func (r *liveReader) stop() { r.timer.Stop() }
