// Package api serves the control API: HTTP and JSON, described by the OpenAPI
// document at /openapi.json. It shows the cluster as people see it and hands
// what they ask to the manager. It has three entrances: a machine's socket,
// for users with tokens over TLS, and for other managers; a manager that does
// not lead passes requests on to the one that does.
//
// It decides nothing and writes nothing itself: what changes the cluster goes
// through the interfaces of Config. It reads no body that it has not bounded,
// lets nobody do what accessOf does not name, and never answers with a
// credential; the keys and tokens that an admin asks for are its only secrets.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/gitswarm/gitswarm/swarm"
)

// Config is what the API shows and whom it asks. What is not called optional is
// required.
type Config struct {
	View    func() View    // the newest; nil where Machine is in no cluster
	Changes func() Changes // of anything that a View shows
	Blobs   Blobs

	Sources  Sources
	Rollouts Rollouts
	Stacks   Stacks
	Volumes  Volumes
	Planner  Planner
	Streams  Streams
	Nodes    Nodes
	Keys     Keys
	Upkeep   Upkeep
	Users    Users

	Machine  Machine           // optional: without it this machine neither begins nor joins
	Node     swarm.NodeID      // this manager; required with Managers
	Managers Managers          // optional: without it this manager is alone
	Pass     http.RoundTripper // to other managers' ServePeers by Member.Address; required with Managers

	Explain func(error) error // optional: gives an error of the manager the form of Fail
	Version Version
	Scratch string       // optional: folder for uploaded trees; the system's unless set
	Log     *slog.Logger // optional
}

// Server answers the control API.
type Server struct {
	Config
	contents   contents
	mux        *http.ServeMux
	document   *huma.OpenAPI
	operations map[string]string // by the router's pattern
	opened     time.Time
}

// Limits on what is read from a client.
const (
	maxHeaderBytes = 64 << 10
	maxBodyBytes   = 1 << 20
	headerTimeout  = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	shutdownGrace  = 2 * time.Second
)

// New returns a server for what config names.
func New(config Config) *Server {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Explain == nil {
		config.Explain = func(err error) error { return err }
	}
	s := &Server{Config: config, contents: contents{blobs: config.Blobs}, opened: time.Now()}

	s.mux = http.NewServeMux()
	settings := huma.DefaultConfig("gitswarm control API", apiVersion)
	settings.DocsPath, settings.SchemasPath = "", ""
	settings.CreateHooks = nil
	settings.RejectUnknownQueryParameters = true
	settings.Transformers = []huma.Transformer{explain}
	api := humago.New(s.mux, settings)

	s.readRoutes(api)
	s.actRoutes(api)
	s.planRoutes(api)
	s.streamRoutes(api)
	s.nodeRoutes(api)
	s.clusterRoutes(api)
	s.tokenRoutes(api)
	s.machineRoutes(api)
	s.execRoute(s.mux, api)
	s.document = api.OpenAPI()
	s.operations = operations(s.document)
	return s
}

const apiVersion = "1.0.0"

// Document is the OpenAPI document as it is served.
func (s *Server) Document() ([]byte, error) { return s.document.MarshalJSON() }

// explain gives the errors that the router makes itself a remedy.
func explain(_ huma.Context, _ string, value any) (any, error) {
	model, ok := value.(*huma.ErrorModel)
	if !ok {
		return value, nil
	}
	failed := &Failure{Title: model.Title, Status: model.Status, Detail: model.Detail, Errors: model.Errors}
	if model.Status < http.StatusInternalServerError {
		failed.Remedy = "GET /openapi.json describes what is accepted"
	}
	return failed, nil
}

// register adds one operation: its errors get the form of Failure.
func register[I, O any](s *Server, api huma.API, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = maxBodyBytes
	}
	status := http.StatusInternalServerError
	if op.Method != http.MethodGet {
		status = http.StatusConflict // the manager refuses an act with a sentence that says why
	}
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, failure(s.Explain(err), status)
		}
		return out, nil
	})
}

// reading describes a GET operation.
func reading(id, path, summary string) huma.Operation {
	return huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: summary}
}

// acting describes a POST operation.
func acting(id, path, summary string) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: http.MethodPost, Path: path, Summary: summary, DefaultStatus: http.StatusOK,
	}
}

// body is an answer of one JSON value.
type body[T any] struct{ Body T }

func answer[T any](value T) (*body[T], error) { return &body[T]{value}, nil }
