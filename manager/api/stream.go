package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gitswarm/gitswarm/swarm"
)

// lineTimeout is how long a client may take to read a line of a stream.
const lineTimeout = 30 * time.Second

// Broken is the last line of a stream that broke.
type Broken struct {
	Error *Failure `json:"error"`
}

type (
	eventQuery struct {
		Stack  string `query:"stack" maxLength:"255"`
		Since  uint64 `query:"since" doc:"raft index; the newest events unless set"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
		Follow bool   `query:"follow" doc:"go on with new events"`
	}
	waitQuery struct {
		Stack    string `query:"stack" maxLength:"255" doc:"every stack unless set"`
		Revision string `query:"revision" maxLength:"255" doc:"a commit or its first digits; the newest unless set"`
		After    uint64 `query:"after" doc:"a failure counts only if its rollout's id is above this"`
		Accepted bool   `query:"accepted" doc:"wait for what is accepted, whatever became of a newer commit"`
		Seconds  int    `query:"seconds" minimum:"1" maximum:"86400" default:"1800" doc:"how long to wait"`
	}
)

// WaitLine is one line of a wait: what goes on, or how it ended.
type WaitLine struct {
	Pending []string `json:"pending,omitempty"`
	Outcome *Outcome `json:"outcome,omitempty"`
}

func (s *Server) streamRoutes(api huma.API) {
	streaming(s, api, "events", "/v1/events", "What happened, as lines of JSON", Event{}, s.events)
	streaming(s, api, "wait", "/v1/wait", "Wait for a revision: lines of JSON, the last has the outcome", WaitLine{}, s.wait)
	streaming(s, api, "logs", "/v1/logs", "What tasks wrote, as lines of JSON", LogLine{}, s.logs)
}

// emitter writes one line to the client.
type emitter func(line any) error

// streaming adds an operation that answers with lines of JSON. What prepare
// refuses is an ordinary error; a stream that breaks later ends with a Broken.
func streaming[I any](s *Server, api huma.API, id, path, summary string, line any, prepare func(context.Context, *I) (func(context.Context, emitter) error, error)) {
	op := reading(id, path, summary)
	schema := huma.SchemaFromType(api.OpenAPI().Components.Schemas, typeOf(line))
	op.Responses = map[string]*huma.Response{"200": {
		Description: "lines of JSON",
		Content:     map[string]*huma.MediaType{"application/x-ndjson": {Schema: schema}},
	}}

	register(s, api, op, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		run, err := prepare(ctx, in)
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(stream huma.Context) {
			stream.SetHeader("Content-Type", "application/x-ndjson")
			emit := lines(stream)
			if err := run(stream.Context(), emit); err != nil && stream.Context().Err() == nil {
				_ = emit(Broken{failure(err, http.StatusInternalServerError)}) // the client is gone if this fails
			}
		}}, nil
	})
}

// lines returns an emitter that sends each line at once and gives up on a
// client that does not read.
func lines(stream huma.Context) emitter {
	w := stream.BodyWriter()
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	writer, _ := w.(http.ResponseWriter)
	control := http.NewResponseController(writer)
	_ = control.Flush() // headers first: the client knows that it is heard

	return func(line any) error {
		_ = control.SetWriteDeadline(time.Now().Add(lineTimeout)) // not every transport has one
		if err := encoder.Encode(line); err != nil {
			return fmt.Errorf("send line: %w", err)
		}
		return control.Flush()
	}
}

func (s *Server) events(ctx context.Context, in *eventQuery) (func(context.Context, emitter) error, error) {
	query, who := *in, callerOf(ctx)
	return func(ctx context.Context, emit emitter) error {
		changes := s.Changes()
		defer changes.Close()
		for {
			changed := changes.Next()
			for _, event := range s.View().Events(query.Since, query.Limit) {
				query.Since = max(query.Since, event.Index)
				if query.Stack != "" && string(event.Stack) != query.Stack || !s.mayHear(who, event) {
					continue
				}
				if err := emit(eventOf(event)); err != nil {
					return err
				}
			}
			if !query.Follow {
				return nil
			}
			query.Limit = maxEvents
			if pause(ctx, changed, 0) != nil {
				return nil
			}
		}
	}, nil
}

// mayHear reports whether an event is of a caller's source.
func (s *Server) mayHear(who caller, event swarm.Event) bool {
	if who.Source == "" {
		return true
	}
	record, ok := s.View().Stack(event.Stack)
	return ok && who.mine(record.Source)
}

// maxEvents is how many events the cluster keeps.
const maxEvents = 1000

// pause waits for the next change, and then until a burst of them is over.
func pause(ctx context.Context, changed <-chan struct{}, burst time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
	}
	if burst == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(burst):
		return nil
	}
}

const (
	waitBurst = 50 * time.Millisecond // pages are not computed more often than this
	waitFetch = 5 * time.Second       // how often a wait asks the source again
)

func (s *Server) wait(ctx context.Context, in *waitQuery) (func(context.Context, emitter) error, error) {
	goal := Goal{Stack: swarm.StackName(in.Stack), Revision: in.Revision, After: in.After, Accepted: in.Accepted}
	if goal.Revision != "" && !leastDigits(goal.Revision) {
		return nil, Invalid(fmt.Sprintf("%q is no commit", goal.Revision), "give at least four digits of its id, as git rev-parse HEAD prints it")
	}
	if shot := s.snapshot(ctx, goal.Stack); goal.Stack != "" && goal.Revision == "" {
		if _, ok := shot.record(goal.Stack); !ok {
			return nil, shot.noStack(goal.Stack)
		}
	}
	limit := time.Duration(in.Seconds) * time.Second
	return func(ctx context.Context, emit emitter) error {
		deadline, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		outcome, err := s.await(deadline, goal, emit)
		if ctx.Err() != nil || err != nil {
			return err
		}
		return emit(WaitLine{Outcome: &outcome})
	}, nil
}

// await emits what goes on until the goal is reached or ctx ends.
func (s *Server) await(ctx context.Context, goal Goal, emit emitter) (Outcome, error) {
	changes := s.Changes()
	defer changes.Close()
	fetching, stop := context.WithCancel(ctx)
	defer stop()
	if goal.Revision != "" {
		go s.keepFetching(fetching, goal)
	}

	var sight Sight
	last := ""
	for {
		changed := changes.Next()
		shot := s.goalSnapshot(ctx, goal)
		sight.Look(shot, goal.Revision)
		outcome, pending, ok := shot.JudgeAll(goal, sight)
		if ok {
			return outcome, nil
		}
		if text := fmt.Sprint(pending); text != last {
			last = text
			if err := emit(WaitLine{Pending: pending}); err != nil {
				return Outcome{}, err
			}
		}
		if pause(ctx, changed, waitBurst) != nil {
			return timedOut(outcome, pending), nil
		}
	}
}

func (s *Server) goalSnapshot(ctx context.Context, goal Goal) Snapshot {
	ctx = context.WithoutCancel(ctx) // content is still read when time is up
	if goal.Stack == "" {
		return s.snapshot(ctx)
	}
	return s.snapshot(ctx, goal.Stack)
}

// timedOut is the outcome of a wait that took too long: a failure that is
// known already counts more.
func timedOut(known Outcome, pending []string) Outcome {
	if known.Code == CodeFailed || known.Code == CodeRefused {
		return known
	}
	return Outcome{CodeTimeout, "timed out", "timed out: " + firstFew(pending)}
}

// keepFetching asks the goal's sources until they have shown the revision: a
// push may reach the remote later than the wait reaches us.
func (s *Server) keepFetching(ctx context.Context, goal Goal) {
	for {
		view := s.View()
		record, known := view.Stack(goal.Stack)
		for _, source := range view.Sources() {
			concerned := (!known || source.ID == record.Source) && callerOf(ctx).mine(source.ID)
			if !concerned || Matches(source.Status.Head, goal.Revision) {
				continue
			}
			if err := s.Sources.SyncSource(ctx, source.ID); err != nil && ctx.Err() == nil {
				s.Log.Debug("source was not fetched for a wait", "source", source.ID, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(waitFetch):
		}
	}
}
