package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gitswarm/gitswarm/swarm"
)

// access is what an operation asks of whoever calls it, and of the machine
// that answers.
type access struct {
	role   swarm.UserRole // who may; empty means everybody, without a token
	bound  bool           // a token of one source may, too: what it sees is of that source alone
	here   bool           // this machine answers, whatever it is; it is never passed on
	socket bool           // only on this machine's socket
	stale  bool           // without a leader it may be answered from what this manager knows
}

// accessOf is the table of who may do what. An operation that is not in it is
// open to nobody.
func accessOf(operation string) (access, bool) {
	switch operation {
	case "document", "authority":
		return access{here: true}, true
	case "version":
		return access{role: swarm.UserViewer, bound: true, here: true}, true
	case "machine", "begin", "join", "leave", "unlock", "restore":
		return access{role: swarm.UserAdmin, here: true, socket: true}, true

	case "status", "list-stacks", "get-stack", "history", "inspect", "list-services", "list-tasks",
		"list-sources", "get-source", "events":
		return access{role: swarm.UserViewer, bound: true, stale: true}, true
	case "wait", "logs", "stats":
		return access{role: swarm.UserViewer, bound: true}, true
	case "list-nodes", "get-node", "list-volumes", "list-grants", "get-cluster":
		return access{role: swarm.UserViewer, stale: true}, true

	case "plan", "plan-tree", "sync-source":
		return access{role: swarm.UserCI, bound: true}, true

	case "add-source", "remove-source", "approve", "retry", "rollback", "redeploy", "restart", "scale", "suspend",
		"resume", "rebalance", "release-volume", "remove-volume", "exec",
		"set-availability", "set-role", "label-node", "remove-node":
		return access{role: swarm.UserOperator}, true

	case "join-token", "unlock-key", "rotate-ca", "configure", "upgrade",
		"list-tokens", "add-token", "remove-token":
		return access{role: swarm.UserAdmin}, true
	case "backup": // before a manager goes on alone, what it knows is kept
		return access{role: swarm.UserAdmin, stale: true}, true
	}
	return access{}, false
}

// ranks orders the roles: each may do what those before it may.
func ranks() []swarm.UserRole {
	return []swarm.UserRole{swarm.UserViewer, swarm.UserCI, swarm.UserOperator, swarm.UserAdmin}
}

// caller is who asks.
type caller struct {
	Name   string         `json:"name"`
	Role   swarm.UserRole `json:"role"`
	Source swarm.SourceID `json:"source,omitempty"` // all that a bound token sees
	Token  string         `json:"token,omitempty"`  // id of the token that said so
	socket bool           // on this machine's socket
	passed bool           // by another manager, which passed the request on
}

type callerKey struct{}

func withCaller(ctx context.Context, who caller) context.Context {
	return context.WithValue(ctx, callerKey{}, who)
}

func callerOf(ctx context.Context) caller {
	who, _ := ctx.Value(callerKey{}).(caller)
	return who
}

// by is the name of who asks.
func by(ctx context.Context) string { return callerOf(ctx).Name }

// may says why a caller may not do an operation, or nil.
func (c caller) may(operation string, asks access) error {
	if asks.role == "" {
		return nil
	}
	have, need := slices.Index(ranks(), c.Role), slices.Index(ranks(), asks.role)
	switch {
	case have < 0 || need < 0 || have < need:
		return Fail(http.StatusForbidden, fmt.Sprintf("%s asks for role %s; %s has role %s", operation, asks.role, orNobody(c.Name), orNobody(string(c.Role))),
			"ask an admin for a token with more rights: gitswarm token user NAME --role "+string(asks.role))
	case c.Source != "" && !asks.bound:
		return Fail(http.StatusForbidden, fmt.Sprintf("the token %s is for source %s alone; %s is about more", c.Name, c.Source, operation),
			"use a token without --source")
	case asks.socket && !c.socket:
		return Fail(http.StatusForbidden, operation+" is answered only on the machine that it is about", "run the command there")
	}
	return nil
}

func orNobody(text string) string {
	if text == "" {
		return "nobody"
	}
	return text
}

// mine reports whether a caller may see a source's stacks.
func (c caller) mine(source swarm.SourceID) bool { return c.Source == "" || c.Source == source }

// narrow leaves in a snapshot what the caller may see.
func (c caller) narrow(shot Snapshot) Snapshot {
	if c.Source == "" {
		return shot
	}
	shot.Sources = slices.DeleteFunc(slices.Clone(shot.Sources), func(source swarm.Source) bool { return !c.mine(source.ID) })
	shot.Stacks = slices.DeleteFunc(slices.Clone(shot.Stacks), func(record swarm.StackRecord) bool { return !c.mine(record.Source) })
	tasks := map[swarm.StackName][]swarm.Task{}
	for _, record := range shot.Stacks {
		tasks[record.Name] = shot.Tasks[record.Name]
	}
	shot.Tasks = tasks
	return shot
}

// operations names the operation behind each pattern of the router.
func operations(document *huma.OpenAPI) map[string]string {
	names := map[string]string{}
	for path, item := range document.Paths {
		for method, operation := range map[string]*huma.Operation{
			http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodDelete: item.Delete, http.MethodPut: item.Put,
		} {
			if operation != nil {
				names[method+" "+path] = operation.OperationID
			}
		}
	}
	return names
}

// operationOf names what a request asks for; empty means that nothing of that
// name is there.
func (s *Server) operationOf(r *http.Request) string {
	_, pattern := s.mux.Handler(r)
	if name, ok := s.operations[pattern]; ok {
		return name
	}
	if strings.HasPrefix(r.URL.Path, "/openapi") && pattern != "" {
		return "document"
	}
	return pattern
}

// enter lets a request in if its caller may do what it asks, and if this
// machine is one that can answer.
func (s *Server) enter(w http.ResponseWriter, r *http.Request) {
	operation := s.operationOf(r)
	if operation == "" {
		s.mux.ServeHTTP(w, r) // not found, or another method
		return
	}
	asks, known := accessOf(operation)
	if !known {
		refuse(w, Fail(http.StatusForbidden, "nobody may do "+operation, ""))
		return
	}
	if err := callerOf(r.Context()).may(operation, asks); err != nil {
		refuse(w, err)
		return
	}

	s.bound(w, r, operation)
	if asks.here {
		s.mux.ServeHTTP(w, r)
		return
	}
	standing := s.standing()
	switch {
	case standing.Membership == IsManager && s.Managers != nil:
		s.pass(w, r, asks)
	case standing.Membership == IsManager || operation == "status":
		s.mux.ServeHTTP(w, r)
	default:
		refuse(w, standing.refusal())
	}
}

// bound caps the body, also of those that no operation declares.
func (s *Server) bound(w http.ResponseWriter, r *http.Request, operation string) {
	limit := int64(maxTreeBytes + maxBodyBytes)
	if operation == "restore" {
		limit = maxBackupBytes
	}
	r.Body = http.MaxBytesReader(w, r.Body, limit)
}
