package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gitswarm/gitswarm/swarm"
)

// maxBackupBytes bounds a backup that is restored.
const maxBackupBytes = 64 << 30

// Codes of failures, for programs.
const (
	CodeNoCluster = "no-cluster" // this machine is in none
	CodeLocked    = "locked"     // this manager waits for its unlock key
	CodeJoining   = "joining"    // this machine waits for the managers
	CodeWorker    = "worker"     // this machine is none of the managers
	CodeNoQuorum  = "no-quorum"  // no leader, and too few managers answer
	CodeNoLeader  = "no-leader"  // no leader yet, but enough managers answer
)

// Place is how this machine stands in a cluster.
type Place struct {
	Membership string   `json:"membership" enum:"none,locked,joining,worker,manager"`
	Cluster    string   `json:"cluster,omitempty"`
	Node       string   `json:"node,omitempty"`
	Managers   []string `json:"managers,omitempty" doc:"host:port"`
	Why        string   `json:"why,omitempty" doc:"what it waits for"`
	Text       string   `json:"text" doc:"for people, with what to do"`
}

// standing is this machine's place; one that was not told of any is a manager.
func (s *Server) standing() Standing {
	if s.Machine == nil {
		return Standing{Membership: IsManager, Node: s.Node}
	}
	return s.Machine.Standing()
}

// refusal says why this machine does not answer for the cluster.
func (p Standing) refusal() error {
	detail, remedy, code := p.words()
	return &Failure{Title: http.StatusText(http.StatusConflict), Status: http.StatusConflict, Detail: detail, Remedy: remedy, Code: code}
}

func (p Standing) words() (detail, remedy, code string) {
	switch p.Membership {
	case InNone:
		return "this machine is in no cluster", "gitswarm init begins one, gitswarm join --token TOKEN HOST enters one", CodeNoCluster
	case IsLocked:
		return "this manager is locked", "gitswarm unlock, with the key that gitswarm unlock-key shows on another manager", CodeLocked
	case IsJoining:
		return "this machine is in a cluster and waits: " + p.Why, "gitswarm doctor checks this machine; gitswarm leave --force gives up", CodeJoining
	case IsWorker:
		remedy := "ask a manager"
		if len(p.Managers) > 0 {
			remedy += ": " + strings.Join(p.Managers, ", ")
		}
		return "this machine is a worker", remedy, CodeWorker
	}
	return "this machine is a manager", "", ""
}

func placeOf(p Standing) Place {
	detail, remedy, _ := p.words()
	if remedy != "" {
		detail += " → " + remedy
	}
	return Place{
		Membership: string(p.Membership), Cluster: p.Cluster, Node: string(p.Node), Managers: p.Managers, Why: p.Why, Text: detail,
	}
}

// Reach is where a machine is reached and listens.
type Reach struct {
	Advertise string `json:"advertise,omitempty" maxLength:"255" doc:"host[:port] that other machines dial"`
	Listen    string `json:"listen,omitempty" maxLength:"255" doc:"host[:port] to listen on; every address, port 2377 unless set"`
	DataPath  string `json:"dataPath,omitempty" maxLength:"255" doc:"address for containers' traffic; advertise's unless set"`
}

func (r Reach) addresses() Addresses {
	return Addresses{Advertise: r.Advertise, Listen: r.Listen, DataPath: r.DataPath}
}

// BeginRequest asks this machine to begin a cluster.
type BeginRequest struct {
	Reach
	Autolock         bool     `json:"autolock,omitempty"`
	ForceNew         bool     `json:"forceNew,omitempty" doc:"this manager alone goes on with its state"`
	CertExpiry       string   `json:"certExpiry,omitempty" maxLength:"32" doc:"as 2160h"`
	TaskHistory      int      `json:"taskHistory,omitempty" minimum:"0" maximum:"1000"`
	SnapshotInterval uint64   `json:"snapshotInterval,omitempty" maximum:"10000000" doc:"log entries"`
	Heartbeat        string   `json:"heartbeat,omitempty" maxLength:"32" doc:"as 800ms"`
	AddressPool      []string `json:"addressPool,omitempty" maxItems:"16" doc:"CIDR"`
}

// Beginner is what a cluster that began tells.
type Beginner struct {
	Cluster   string `json:"cluster"`
	Node      string `json:"node"`
	Address   string `json:"address" doc:"host:port that other machines dial"`
	UnlockKey string `json:"unlockKey,omitempty" doc:"shown once"`
}

// JoinRequest asks this machine to join a cluster.
type JoinRequest struct {
	Reach
	Token        string `json:"token" minLength:"1" maxLength:"512"`
	Manager      string `json:"manager" minLength:"1" maxLength:"255" doc:"host[:port] of any manager"`
	Availability string `json:"availability,omitempty" enum:"active,paused,drained"`
}

type (
	leaveBody struct {
		Force bool `json:"force,omitempty" doc:"leave although this is a manager"`
	}
	unlockBody struct {
		Key string `json:"key" minLength:"1" maxLength:"512"`
	}
	restoreInput struct {
		Key       string `header:"Gitswarm-Key" required:"true" minLength:"1" maxLength:"4096" doc:"that the backup was made with"`
		Advertise string `query:"advertise" maxLength:"255"`
		Listen    string `query:"listen" maxLength:"255"`
		DataPath  string `query:"dataPath" maxLength:"255"`
		content   io.Reader
	}
)

// Resolve keeps the body unread: a backup may be larger than memory.
func (in *restoreInput) Resolve(ctx huma.Context) []error {
	in.content = ctx.BodyReader()
	return nil
}

func (s *Server) machineRoutes(api huma.API) {
	register(s, api, reading("machine", "/v1/machine", "How this machine stands in a cluster"), s.machine)
	register(s, api, acting("begin", "/v1/machine/begin", "Begin a cluster on this machine"), s.begin)
	register(s, api, acting("join", "/v1/machine/join", "Join a cluster"), s.join)
	register(s, api, acting("leave", "/v1/machine/leave", "Leave the cluster"), s.leave)
	register(s, api, acting("unlock", "/v1/machine/unlock", "Give a locked manager its key"), s.unlock)
	s.restoreRoute(api)
}

func (s *Server) machine(context.Context, *none) (*body[Place], error) {
	return answer(placeOf(s.standing()))
}

// daemon is who begins, joins and leaves.
func (s *Server) daemon() (Machine, error) {
	if s.Machine == nil {
		return nil, Conflict("this machine's daemon can neither begin nor join a cluster", "it is in one already")
	}
	return s.Machine, nil
}

func (s *Server) begin(ctx context.Context, in *struct{ Body BeginRequest }) (*body[Beginner], error) {
	machine, err := s.daemon()
	if err != nil {
		return nil, err
	}
	r := in.Body
	settings, err := checkSettings(swarm.ClusterSettings{
		TaskHistory: r.TaskHistory, SnapshotInterval: r.SnapshotInterval, AddressPool: r.AddressPool,
	}, r.CertExpiry, r.Heartbeat)
	if err != nil {
		return nil, err
	}
	begun, err := machine.Begin(ctx, Beginning{
		Addresses: r.addresses(), Settings: settings, Autolock: r.Autolock, ForceNew: r.ForceNew,
	}, by(ctx))
	if err != nil {
		return nil, err
	}
	return answer(beginnerOf(begun))
}

func beginnerOf(begun Begun) Beginner {
	return Beginner{Cluster: begun.Cluster, Node: string(begun.Node), Address: begun.Address, UnlockKey: begun.UnlockKey}
}

func (s *Server) join(ctx context.Context, in *struct{ Body JoinRequest }) (*body[Place], error) {
	machine, err := s.daemon()
	if err != nil {
		return nil, err
	}
	r := in.Body
	err = machine.Join(ctx, Joining{
		Addresses: r.addresses(), Token: strings.TrimSpace(r.Token), Manager: r.Manager, Availability: swarm.Availability(r.Availability),
	}, by(ctx))
	if err != nil {
		return nil, err
	}
	return s.machine(ctx, nil)
}

func (s *Server) leave(ctx context.Context, in *struct{ Body leaveBody }) (*body[Done], error) {
	machine, err := s.daemon()
	if err != nil {
		return nil, err
	}
	standing := machine.Standing()
	if standing.Membership == InNone {
		return nil, standing.refusal()
	}
	if err := machine.Leave(ctx, in.Body.Force, by(ctx)); err != nil {
		return nil, err
	}
	return answer(Done{Text: fmt.Sprintf("this machine left the cluster; on a manager, gitswarm node rm %s forgets it", standing.Node)})
}

func (s *Server) unlock(ctx context.Context, in *struct{ Body unlockBody }) (*body[Done], error) {
	machine, err := s.daemon()
	if err != nil {
		return nil, err
	}
	if machine.Standing().Membership != IsLocked {
		return nil, Conflict("this machine is not locked", "gitswarm status shows what it does")
	}
	if err := machine.Unlock(ctx, strings.TrimSpace(in.Body.Key), by(ctx)); err != nil {
		return nil, err
	}
	return answer(Done{Text: "this manager is unlocked"})
}

// restoreRoute adds the one operation whose body is read as it comes.
func (s *Server) restoreRoute(api huma.API) {
	op := acting("restore", "/v1/machine/restore", "Begin again from a backup: its bytes are the body")
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
	}}
	register(s, api, op, s.restore)
}

func (s *Server) restore(ctx context.Context, in *restoreInput) (*body[Beginner], error) {
	machine, err := s.daemon()
	if err != nil {
		return nil, err
	}
	begun, err := machine.Restore(ctx, Restoring{
		Addresses: Addresses{Advertise: in.Advertise, Listen: in.Listen, DataPath: in.DataPath}, Key: in.Key, Backup: in.content,
	}, by(ctx))
	if err != nil {
		return nil, err
	}
	return answer(beginnerOf(begun))
}
