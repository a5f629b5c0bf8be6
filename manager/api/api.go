// Package api serves the control API: HTTP and JSON, described by the OpenAPI
// document at /openapi.json, on a unix socket. It shows the cluster as people
// see it and hands what they ask to the manager.
//
// It decides nothing and writes nothing itself: what changes the cluster goes
// through the interfaces of Config. It reads no body that it has not bounded,
// and it never answers with a secret or a credential.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/gitswarm/gitswarm/swarm"
)

// Config is what the API shows and whom it asks. What is not called optional is
// required.
type Config struct {
	View    func() View    // the newest
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

	Cluster func() (swarm.Cluster, bool)
	Tokens  func() []swarm.UserToken // of users

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
	contents contents
	handler  http.Handler
	document *huma.OpenAPI
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
	s := &Server{Config: config, contents: contents{blobs: config.Blobs}}

	mux := http.NewServeMux()
	settings := huma.DefaultConfig("gitswarm control API", apiVersion)
	settings.DocsPath, settings.SchemasPath = "", ""
	settings.CreateHooks = nil
	settings.RejectUnknownQueryParameters = true
	settings.Transformers = []huma.Transformer{explain}
	api := humago.New(mux, settings)

	s.readRoutes(api)
	s.actRoutes(api)
	s.planRoutes(api)
	s.streamRoutes(api)
	s.execRoute(mux, api)
	s.document = api.OpenAPI()
	s.handler = bounded(mux)
	return s
}

const apiVersion = "1.0.0"

// Handler is the API without a listener.
func (s *Server) Handler() http.Handler { return s.handler }

// Document is the OpenAPI document as it is served.
func (s *Server) Document() ([]byte, error) { return s.document.MarshalJSON() }

// Serve answers on listener until ctx ends, then closes it. Streams end with
// ctx.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
	}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	defer stop()

	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control API on %s: %w", listener.Addr(), err)
	}
	return nil
}

// bounded caps every body, also those that no operation declares.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxTreeBytes+maxBodyBytes)
		next.ServeHTTP(w, r)
	})
}

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
