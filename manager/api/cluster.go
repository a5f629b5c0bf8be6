package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gitswarm/gitswarm/swarm"
)

// Cluster is what all machines share, as people see it. No key and no token is
// in it.
type Cluster struct {
	ID               string   `json:"id"`
	Managers         int      `json:"managers"`
	Nodes            int      `json:"nodes"`
	Autolock         bool     `json:"autolock"`
	CertExpiry       string   `json:"certExpiry"`
	TaskHistory      int      `json:"taskHistory"`
	SnapshotInterval uint64   `json:"snapshotInterval" doc:"log entries"`
	Heartbeat        string   `json:"heartbeat"`
	AddressPool      []string `json:"addressPool,omitempty" doc:"the built-in one unless set"`
	Pins             []string `json:"pins,omitempty" doc:"of the roots that are trusted; two while a rotation is under way"`
}

type (
	configureBody struct {
		Autolock         *bool   `json:"autolock,omitempty"`
		CertExpiry       string  `json:"certExpiry,omitempty" maxLength:"32" doc:"as 2160h"`
		TaskHistory      *int    `json:"taskHistory,omitempty" minimum:"1" maximum:"1000"`
		SnapshotInterval *uint64 `json:"snapshotInterval,omitempty" minimum:"1" maximum:"10000000"`
		Heartbeat        string  `json:"heartbeat,omitempty" maxLength:"32" doc:"as 800ms"`
	}
	rotateBody struct {
		Rotate bool `json:"rotate,omitempty" doc:"make a new one; the old one is worth nothing from then on"`
	}
	joinTokenBody struct {
		Role   string `json:"role" enum:"worker,manager"`
		Rotate bool   `json:"rotate,omitempty" doc:"make a new one; the old one lets nobody in from then on"`
	}
	backupBody struct {
		Key string `json:"key" minLength:"12" maxLength:"4096" doc:"that restore asks for"`
	}
	upgradeBody struct {
		Binary string   `json:"binary,omitempty" maxLength:"4096" pattern:"^/" doc:"path on each node; where its daemon was started from unless set"`
		Digest string   `json:"digest,omitempty" pattern:"^sha256:[0-9a-f]{64}$" doc:"of the binary"`
		Nodes  []string `json:"nodes,omitempty" maxItems:"10000" doc:"all unless set"`
		Check  bool     `json:"check,omitempty" doc:"say what would happen, and no more"`
	}
	rebalanceBody struct {
		Stack string `json:"stack,omitempty" maxLength:"255" doc:"every stack unless set"`
	}
)

// JoinToken lets machines in.
type JoinToken struct {
	Role    string `json:"role"`
	Token   string `json:"token"`
	Command string `json:"command" doc:"what to type on the machine that joins"`
}

// UnlockKey is what a manager needs to start while autolock is on.
type UnlockKey struct {
	Key string `json:"key,omitempty" doc:"empty where autolock is off"`
}

// UpgradeLine is one step of an upgrade, or its end. An answer without an end
// is to be asked for again: the daemon that gave it was replaced, or another
// manager goes on.
type UpgradeLine struct {
	Text string `json:"text,omitempty"`
	Done bool   `json:"done,omitempty"`
}

func (s *Server) clusterRoutes(api huma.API) {
	register(s, api, reading("get-cluster", "/v1/cluster", "What all machines share"), s.getCluster)
	register(s, api, acting("configure", "/v1/cluster", "Change what all machines share"), s.configure)
	register(s, api, acting("join-token", "/v1/cluster/join-token", "The token that lets a worker or manager join"), s.joinToken)
	register(s, api, acting("unlock-key", "/v1/cluster/unlock-key", "The key that managers ask for when they start"), s.unlockKey)
	register(s, api, acting("rotate-ca", "/v1/cluster/rotate-ca", "Replace the certificate authority, without downtime"), s.rotateCA)
	register(s, api, acting("rebalance", "/v1/rebalance", "Move replicas to emptier nodes, one at a time"), s.rebalance)
	s.backupRoute(api)
	s.upgradeRoute(api)
}

func (s *Server) cluster() swarm.Cluster {
	if s.View == nil {
		return swarm.Cluster{}
	}
	cluster, _ := s.View().Cluster()
	return cluster
}

func (s *Server) getCluster(context.Context, *none) (*body[Cluster], error) {
	cluster := s.cluster()
	settings := cluster.Settings.Defaulted()
	view := Cluster{
		ID: cluster.ID, Autolock: cluster.UnlockKey != nil, CertExpiry: settings.CertExpiry.String(),
		TaskHistory: settings.TaskHistory, SnapshotInterval: settings.SnapshotInterval, Heartbeat: settings.Heartbeat.String(),
		AddressPool: settings.AddressPool, Pins: pins(cluster.Authority.Trust),
	}
	for _, node := range s.View().Nodes() {
		view.Nodes++
		if node.Role == swarm.RoleManager {
			view.Managers++
		}
	}
	return answer(view)
}

// Bounds of settings.
const (
	shortestExpiry    = time.Hour
	smallestPool      = 24 // bits: one subnet
	shortestHeartbeat = 100 * time.Millisecond
	longestHeartbeat  = time.Minute
)

// checkSettings adds the spans that a request writes as text.
func checkSettings(settings swarm.ClusterSettings, expiry, heartbeat string) (swarm.ClusterSettings, error) {
	var err error
	if settings.CertExpiry, err = span("certificate expiry", expiry, shortestExpiry, 10*365*24*time.Hour); err != nil {
		return settings, err
	}
	if settings.Heartbeat, err = span("heartbeat", heartbeat, shortestHeartbeat, longestHeartbeat); err != nil {
		return settings, err
	}
	for _, pool := range settings.AddressPool {
		if prefix, err := netip.ParsePrefix(pool); err != nil || !prefix.Addr().Is4() || prefix.Bits() > smallestPool {
			return settings, Invalid(fmt.Sprintf("address pool %q is no IPv4 CIDR of /%d or larger", pool, smallestPool), "write it as 10.128.0.0/9")
		}
	}
	return settings, nil
}

// span reads a duration within bounds; empty is zero.
func span(what, text string, least, most time.Duration) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < least || d > most {
		return 0, Invalid(fmt.Sprintf("%s %q is not taken", what, text), fmt.Sprintf("give a span from %v to %v", least, most))
	}
	return d, nil
}

// Configured is what a change of the cluster led to.
type Configured struct {
	Cluster   Cluster `json:"cluster"`
	UnlockKey string  `json:"unlockKey,omitempty" doc:"if autolock was turned on"`
}

func (s *Server) configure(ctx context.Context, in *struct{ Body configureBody }) (*body[Configured], error) {
	r := in.Body
	settings, err := checkSettings(swarm.ClusterSettings{}, r.CertExpiry, r.Heartbeat)
	if err != nil {
		return nil, err
	}
	change := Change{Autolock: r.Autolock, TaskHistory: r.TaskHistory, SnapshotInterval: r.SnapshotInterval}
	if r.CertExpiry != "" {
		change.CertExpiry = &settings.CertExpiry
	}
	if r.Heartbeat != "" {
		change.Heartbeat = &settings.Heartbeat
	}
	if change == (Change{}) {
		return nil, Invalid("no change was given", "GET /openapi.json describes what is accepted")
	}
	key, err := s.Upkeep.Configure(ctx, change, by(ctx))
	if err != nil {
		return nil, err
	}
	cluster, err := s.getCluster(ctx, nil)
	if err != nil {
		return nil, err
	}
	return answer(Configured{Cluster: cluster.Body, UnlockKey: key})
}

func (s *Server) joinToken(ctx context.Context, in *struct{ Body joinTokenBody }) (*body[JoinToken], error) {
	token, err := s.Keys.JoinToken(ctx, in.Body.Role, in.Body.Rotate, by(ctx))
	if err != nil {
		return nil, err
	}
	command := fmt.Sprintf("gitswarm join --token %s %s", token, s.address())
	return answer(JoinToken{Role: in.Body.Role, Token: token, Command: command})
}

// address is where other machines reach this manager.
func (s *Server) address() string {
	if s.Managers != nil {
		if leader, ok := s.Managers.Leader(); ok && leader.Address != "" {
			return leader.Address
		}
	}
	for _, node := range s.View().Nodes() {
		if node.ID == s.Node && node.Description.Address != "" {
			return node.Description.Address
		}
	}
	return "MANAGER:2377"
}

func (s *Server) unlockKey(ctx context.Context, in *struct{ Body rotateBody }) (*body[UnlockKey], error) {
	key, err := s.Keys.UnlockKey(ctx, in.Body.Rotate, by(ctx))
	if err != nil {
		return nil, err
	}
	return answer(UnlockKey{key})
}

func (s *Server) rotateCA(ctx context.Context, _ *none) (*body[Done], error) {
	if err := s.Keys.RotateCA(ctx, by(ctx)); err != nil {
		return nil, err
	}
	return answer(Done{Text: "a new certificate authority is in place; nodes get their certificates from it within minutes, and the old one is dropped once all have"})
}

func (s *Server) rebalance(ctx context.Context, in *struct{ Body rebalanceBody }) (*body[Done], error) {
	if in.Body.Stack != "" {
		if _, err := s.known(ctx, in.Body.Stack); err != nil {
			return nil, err
		}
	}
	services, err := s.Upkeep.Rebalance(ctx, swarm.StackName(in.Body.Stack), by(ctx))
	if err != nil {
		return nil, err
	}
	if len(services) == 0 {
		return answer(Done{Text: "nothing moves: no node is so much emptier that it would help"})
	}
	var names []string
	for _, service := range services {
		names = append(names, string(service))
	}
	return answer(Done{Text: "replicas move one at a time: " + strings.Join(names, ", ")})
}

// backupRoute adds the one operation that answers with bytes.
func (s *Server) backupRoute(api huma.API) {
	op := acting("backup", "/v1/cluster/backup", "The state and the blobs of the cluster, sealed by a key")
	op.Responses = map[string]*huma.Response{"200": {
		Description: "the backup",
		Content: map[string]*huma.MediaType{"application/octet-stream": {
			Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"},
		}},
	}}
	register(s, api, op, s.backup)
}

// backup is written to a file first, so that one that fails is an error and
// never a short answer.
func (s *Server) backup(ctx context.Context, in *struct{ Body backupBody }) (*huma.StreamResponse, error) {
	if s.Scratch != "" {
		if err := os.MkdirAll(s.Scratch, 0o700); err != nil {
			return nil, fmt.Errorf("make folder for backup: %w", err)
		}
	}
	file, err := os.CreateTemp(s.Scratch, "gitswarm-backup-")
	if err != nil {
		return nil, fmt.Errorf("make file for backup: %w", err)
	}
	os.Remove(file.Name()) // it lives until it is closed
	if err := s.Upkeep.Backup(ctx, file, in.Body.Key); err != nil {
		file.Close()
		return nil, err
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("read backup: %w", err)
	}
	return &huma.StreamResponse{Body: func(stream huma.Context) {
		defer file.Close()
		stream.SetHeader("Content-Type", "application/octet-stream")
		stream.SetHeader("Content-Length", fmt.Sprint(size))
		_, _ = io.Copy(stream.BodyWriter(), file) // a client that is gone needs no answer; a short one is seen by its length
	}}, nil
}

// upgradeRoute adds a stream that acts.
func (s *Server) upgradeRoute(api huma.API) {
	op := acting("upgrade", "/v1/cluster/upgrade", "Replace the daemons node by node: lines of JSON, one for each step")
	schema := huma.SchemaFromType(api.OpenAPI().Components.Schemas, typeOf(UpgradeLine{}))
	op.Responses = map[string]*huma.Response{"200": {
		Description: "lines of JSON",
		Content:     map[string]*huma.MediaType{"application/x-ndjson": {Schema: schema}},
	}}
	register(s, api, op, s.upgrade)
}

func (s *Server) upgrade(ctx context.Context, in *struct{ Body upgradeBody }) (*huma.StreamResponse, error) {
	request := Upgrading{Binary: in.Body.Binary, Digest: in.Body.Digest, Check: in.Body.Check}
	for _, name := range in.Body.Nodes {
		node, err := s.node(name)
		if err != nil {
			return nil, err
		}
		request.Nodes = append(request.Nodes, node.ID)
	}
	who := by(ctx)
	return &huma.StreamResponse{Body: func(stream huma.Context) {
		stream.SetHeader("Content-Type", "application/x-ndjson")
		emit := lines(stream)
		err := s.Upkeep.Upgrade(stream.Context(), request, who, func(line string) error { return emit(UpgradeLine{Text: line}) })
		switch { // the client is gone if what it is told here fails
		case err == nil:
			_ = emit(UpgradeLine{Done: true})
		case !errors.Is(err, ErrGoOn) && stream.Context().Err() == nil:
			_ = emit(Broken{failure(s.Explain(err), http.StatusConflict)})
		}
	}}, nil
}
