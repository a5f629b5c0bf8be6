package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// How long a request waits for a leader: counted from when one was last heard
// of, so that an election is waited for and a lost quorum is told at once.
const (
	patienceToAct  = 10 * time.Second
	patienceToRead = 4 * time.Second
	leastToAct     = time.Second
	leastToRead    = 50 * time.Millisecond
	confirmTime    = 2 * time.Second
	lookAgain      = 25 * time.Millisecond
)

// silence is how long no leader was heard of. A manager that has just started
// may hear of one any moment.
func (s *Server) silence() time.Duration {
	return min(time.Since(s.Managers.LastContact()), time.Since(s.opened))
}

// patience is how long a request waits when a leader was last heard of that
// long ago.
func (a access) patience(silence time.Duration) time.Duration {
	if a.stale {
		return max(min(patienceToRead-silence, patienceToRead), leastToRead)
	}
	return max(min(patienceToAct-silence, patienceToAct), leastToAct)
}

// unreached says that a manager was never asked: the request may go elsewhere.
type unreached struct{ error }

func (e unreached) Unwrap() error { return e.error }

// errAgain is a manager's answer that it does not lead: it did nothing.
var errAgain = errors.New("the manager that was asked does not lead")

// againHeader marks that answer.
const againHeader = "Gitswarm-Again"

// NewPass carries requests to other managers over the connections that dial
// makes: TLS, with both sides' certificates verified.
func NewPass(dial func(ctx context.Context, address string) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			conn, err := dial(ctx, address)
			if err != nil {
				return nil, unreached{err}
			}
			return conn, nil
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     idleTimeout / 2, // sooner than the other side closes
	}
}

// pass has the leader answer: this manager, if it leads, or the one that does.
func (s *Server) pass(w http.ResponseWriter, r *http.Request, asks access) {
	again, err := rewindable(r)
	if err != nil {
		refuse(w, err)
		return
	}
	waiting, cancel := context.WithTimeout(r.Context(), asks.patience(s.silence()))
	defer cancel()

	for waiting.Err() == nil {
		switch s.attempt(waiting, w, r) {
		case answered:
			return
		case unanswered:
			if !again() {
				refuse(w, Unavailable("the leader changed while it was asked", "try again"))
				return
			}
		}
		select {
		case <-waiting.Done():
		case <-time.After(lookAgain):
		}
	}
	s.leaderless(w, r, asks)
}

// verdict is how an attempt ended.
type verdict int

const (
	answered   verdict = iota // the client has its answer
	unanswered                // nobody did anything; the body may have been read
)

func (s *Server) attempt(waiting context.Context, w http.ResponseWriter, r *http.Request) verdict {
	leader, known := s.Managers.Leader()
	switch {
	case !known:
		return s.turnBack(w, r)
	case leader.Node == s.Node:
		confirming, cancel := context.WithTimeout(waiting, confirmTime)
		defer cancel()
		if s.Managers.Confirm(confirming) != nil {
			return s.turnBack(w, r)
		}
		s.mux.ServeHTTP(w, r)
		return answered
	case callerOf(r.Context()).passed:
		return s.turnBack(w, r)
	}
	return s.forward(w, r, leader.Address)
}

// turnBack tells another manager to look for the leader itself: a request is
// passed on once. A client of this manager waits.
func (s *Server) turnBack(w http.ResponseWriter, r *http.Request) verdict {
	if !callerOf(r.Context()).passed {
		return unanswered
	}
	w.Header().Set(againHeader, "1")
	refuse(w, &Failure{
		Title: http.StatusText(http.StatusServiceUnavailable), Status: http.StatusServiceUnavailable,
		Detail: errAgain.Error(), Code: CodeNoLeader,
	})
	return answered
}

// forward passes a request on, upgrades and streams included.
func (s *Server) forward(w http.ResponseWriter, r *http.Request, address string) verdict {
	var failed error
	proxy := &httputil.ReverseProxy{
		Transport:     s.Pass,
		FlushInterval: -1,
		Rewrite: func(out *httputil.ProxyRequest) {
			out.SetURL(&url.URL{Scheme: "http", Host: address})
			out.Out.Header.Del("Authorization")
			out.Out.Header.Set(callerHeader, callerOf(r.Context()).header())
		},
		ModifyResponse: func(answer *http.Response) error {
			if answer.Header.Get(againHeader) != "" {
				return errAgain
			}
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
		ErrorLog:     nil,
	}
	proxy.ServeHTTP(w, r)

	var never unreached
	switch {
	case failed == nil:
		return answered
	case errors.As(failed, &never), errors.Is(failed, errAgain), r.Method == http.MethodGet:
		return unanswered
	case r.Context().Err() != nil:
		return answered // the client is gone
	}
	refuse(w, Fail(http.StatusBadGateway, fmt.Sprintf("the leader at %s was lost before it answered: %v", address, failed),
		"what was asked may have been done: gitswarm events shows it"))
	return answered
}

// rewindable lets a request be sent once more: a body that is small is kept,
// a larger one can be sent once.
func rewindable(r *http.Request) (again func() bool, err error) {
	if r.ContentLength < 0 || r.ContentLength > maxBodyBytes {
		large := &firstRead{ReadCloser: r.Body}
		r.Body = large
		return func() bool { return !large.began }, nil
	}
	kept, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, Invalid("read request: "+err.Error(), "")
	}
	rewind := func() bool {
		r.Body = io.NopCloser(bytes.NewReader(kept))
		return true
	}
	rewind()
	return rewind, nil
}

// firstRead notes whether a body was begun. A body that was not is not closed,
// so that it can be sent elsewhere; the server closes it in the end.
type firstRead struct {
	io.ReadCloser
	began bool
}

func (b *firstRead) Read(p []byte) (int, error) {
	b.began = true
	return b.ReadCloser.Read(p)
}

func (b *firstRead) Close() error {
	if !b.began {
		return nil
	}
	return b.ReadCloser.Close()
}
