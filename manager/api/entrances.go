package api

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/swarm"
)

// Handler is the API as this machine's socket has it: who may open the socket
// is an admin.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.enterAs(w, r, caller{Name: peerOf(r.Context()), Role: swarm.UserAdmin, socket: true})
	})
}

func (s *Server) enterAs(w http.ResponseWriter, r *http.Request, who caller) {
	s.enter(w, r.WithContext(withCaller(r.Context(), who)))
}

// UsersHandler is the API as users have it from afar: each request carries a
// token, as `Authorization: Bearer GSUSR-1-…`.
func (s *Server) UsersHandler() http.Handler {
	failed := newTries(s.Log)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asks, known := accessOf(s.operationOf(r)); known && asks.role == "" {
			s.enterAs(w, r, caller{})
			return
		}
		presented, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		who, err := callerFor(s.tokens(), presented, time.Now())
		if err == nil {
			s.enterAs(w, r, who)
			return
		}
		if !failed.note(r.Context(), r.RemoteAddr, err) {
			w.Header().Set("Retry-After", "5")
			refuse(w, Fail(http.StatusTooManyRequests, "too many tokens were refused", "wait some seconds"))
			return
		}
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(w, Fail(http.StatusUnauthorized, err.Error(), "an admin makes one: gitswarm token user NAME --role ROLE"))
	})
}

// callerHeader carries who asked from one manager to another. It is read on
// connections of managers alone.
const callerHeader = "Gitswarm-Caller"

// managersHandler is the API as other managers have it: they say who asked.
func (s *Server) managersHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := readCaller(r.Header.Get(callerHeader))
		if err == nil {
			who, err = who.again(s.tokens(), time.Now())
		}
		if err != nil {
			refuse(w, Fail(http.StatusUnauthorized, err.Error(), ""))
			return
		}
		who.passed = true
		s.enterAs(w, r, who)
	})
}

func (c caller) header() string {
	data, _ := json.Marshal(c) // strings alone: it never fails
	return base64.StdEncoding.EncodeToString(data)
}

func readCaller(header string) (caller, error) {
	var who caller
	data, err := base64.StdEncoding.DecodeString(header)
	if err == nil {
		err = json.Unmarshal(data, &who)
	}
	if err != nil {
		return caller{}, fmt.Errorf("read who asked: %w", err)
	}
	return who, nil
}

// Serve answers on this machine's socket until ctx ends, then closes it.
// Streams end with ctx.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	return serve(ctx, listener, s.Handler(), s.Log)
}

// ServeUsers answers users over TLS until ctx ends, a bounded number at a time.
func (s *Server) ServeUsers(ctx context.Context, listener net.Listener, config *tls.Config) error {
	return serve(ctx, tls.NewListener(newCrowd(listener), config), s.UsersHandler(), s.Log)
}

// ServeManagers answers other managers until ctx ends. The listener's
// connections are *tls.Conn whose handshake is done; one that did not show a
// manager's certificate is closed.
func (s *Server) ServeManagers(ctx context.Context, listener net.Listener) error {
	return serve(ctx, managersOnly{listener}, s.managersHandler(), s.Log)
}

// managersOnly accepts managers' connections.
type managersOnly struct{ net.Listener }

func (l managersOnly) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if secure, ok := conn.(*tls.Conn); ok {
			if peer, err := identity.PeerOf(secure.ConnectionState()); err == nil && peer.Role == swarm.RoleManager {
				return plainConn{conn}, nil
			}
		}
		conn.Close()
	}
}

// plainConn hides the TLS of a connection from net/http, which closes those
// whose protocol it does not know.
type plainConn struct{ net.Conn }

// serve answers on a listener until ctx ends.
func serve(ctx context.Context, listener net.Listener, handler http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // a scanner's broken handshakes are no news
	}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	defer stop()

	if err := server.Serve(listener); ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control API on %s: %w", listener.Addr(), err)
	}
	return nil
}

// Door is a machine's socket. It stays open while what answers behind it
// changes: with the machine's membership, for one.
type Door struct{ behind atomic.Pointer[Server] }

// NewDoor returns a door with a server behind it.
func NewDoor(first *Server) *Door {
	d := &Door{}
	d.behind.Store(first)
	return d
}

// Open puts another server behind the door. Requests that are under way end
// with the server that they began with.
func (d *Door) Open(next *Server) { d.behind.Store(next) }

// Serve answers until ctx ends.
func (d *Door) Serve(ctx context.Context, listener net.Listener) error {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.behind.Load().Handler().ServeHTTP(w, r) })
	return serve(ctx, listener, handler, d.behind.Load().Log)
}
