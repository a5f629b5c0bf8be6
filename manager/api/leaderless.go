package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// Leaderless is what this manager says while none leads: what it shows is what
// it knew when it last heard of a leader.
type Leaderless struct {
	Since       time.Time `json:"since" doc:"when a leader was last heard of"`
	Quorum      bool      `json:"quorum" doc:"enough managers answer: one of them will lead in a moment"`
	Managers    Count     `json:"managers" doc:"that answer this one"`
	Unreachable []string  `json:"unreachable,omitempty" doc:"managers that do not answer this one"`
	Text        string    `json:"text" doc:"for people"`
	Remedy      string    `json:"remedy" doc:"for people"`
}

// StaleHeader is on answers that no leader confirmed. Its value is when one was
// last heard of, RFC 3339.
const StaleHeader = "Gitswarm-Stale"

type leaderlessKey struct{}

// leaderless answers what may be answered from this manager's own knowledge,
// and refuses the rest.
func (s *Server) leaderless(w http.ResponseWriter, r *http.Request, asks access) {
	if r.Context().Err() != nil {
		return // the client is gone
	}
	lost := s.lookAround(r.Context())
	if asks.stale && r.URL.Query().Get("follow") == "" {
		w.Header().Set(StaleHeader, lost.Since.UTC().Format(time.RFC3339))
		s.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), leaderlessKey{}, lost)))
		return
	}
	code := CodeNoQuorum
	if lost.Quorum {
		code = CodeNoLeader
	}
	refuse(w, &Failure{
		Title: http.StatusText(http.StatusServiceUnavailable), Status: http.StatusServiceUnavailable,
		Detail: lost.Text, Remedy: lost.Remedy, Code: code,
	})
}

// probeTime is how long another manager has to answer.
const probeTime = time.Second

// lookAround asks every other manager whether it is there.
func (s *Server) lookAround(ctx context.Context) *Leaderless {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	members := s.Managers.Members()
	errs := make([]error, len(members))
	var probes sync.WaitGroup
	for i, member := range members {
		if member.Node != s.Node {
			probes.Go(func() { errs[i] = s.probe(ctx, member.Address) })
		}
	}
	probes.Wait()

	lost := &Leaderless{Since: s.Managers.LastContact()}
	shot := Snapshot{Nodes: s.View().Nodes()}
	for i, member := range members {
		if !member.Voter {
			continue
		}
		lost.Managers.Of++
		if errs[i] == nil {
			lost.Managers.Well++
			continue
		}
		lost.Unreachable = append(lost.Unreachable, fmt.Sprintf("%s (%s)", shot.hostname(member.Node), member.Address))
	}
	lost.Quorum = lost.Managers.Well > lost.Managers.Of/2
	lost.say()
	return lost
}

func (l *Leaderless) say() {
	if l.Quorum {
		l.Text = fmt.Sprintf("no leader: an election goes on among %d of %d managers", l.Managers.Well, l.Managers.Of)
		l.Remedy = "wait a moment; if it stays so, the managers' logs say why: journalctl -u gitswarm"
		return
	}
	l.Text = fmt.Sprintf("quorum lost: %d of %d managers do not answer: %s; running containers go on, nothing is changed",
		len(l.Unreachable), l.Managers.Of, strings.Join(l.Unreachable, ", "))
	l.Remedy = "start them, or their links; if they are lost for good, docs/recovery.md: gitswarm init --force-new-cluster"
}

// probe asks another manager for its build: any answer will do.
func (s *Server) probe(ctx context.Context, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v1/version", nil)
	if err != nil {
		return fmt.Errorf("ask manager at %s: %w", address, err)
	}
	request.Header.Set(callerHeader, caller{Role: swarm.UserViewer}.header())
	answer, err := s.Pass.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("ask manager at %s: %w", address, err)
	}
	return answer.Body.Close()
}

// lostQuorum is set where a request is answered without a leader.
func lostQuorum(ctx context.Context) *Leaderless {
	lost, _ := ctx.Value(leaderlessKey{}).(*Leaderless)
	return lost
}
