package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// world is a cluster as the control API sees it: a real store and real blobs
// behind a real socket. Scripts write its story with the command `world`; what
// the manager would do in between, world does.
type world struct {
	t     testing.TB
	store *store.Store
	blobs *blobs.Blobs
	host  string
	users string // https://host:port, where users with tokens are answered
	place machine

	mu    sync.Mutex
	tasks int
	lines []swarm.LogLine // what the world's containers wrote
}

const (
	worldNode   = swarm.NodeID("n1")
	worldSource = swarm.SourceID("stacks")
)

func newWorld(t testing.TB, dir string) *world {
	must(t, os.MkdirAll(dir, 0o700))
	keyring, err := seal.Create(filepath.Join(dir, "keys"))
	must(t, err)
	kept, err := blobs.Open(filepath.Join(dir, "blobs"), keyring)
	must(t, err)
	state, err := store.Open(store.Config{Dir: filepath.Join(dir, "raft"), Node: worldNode, Keyring: keyring})
	must(t, err)
	w := &world{t: t, store: state, blobs: kept, host: "unix://" + filepath.Join(dir, "run", "gitswarm.sock")}
	w.place.become(api.IsManager, "")
	authority, err := identity.NewAuthority("c1", time.Now())
	must(t, err)
	w.do(store.Command{PutCluster: &swarm.Cluster{ID: "c1", Authority: authority, Tokens: swarm.JoinTokens{Worker: "GSTKN-1-w", Manager: "GSTKN-1-m"}}})
	w.do(store.Command{PutNode: &swarm.Node{
		ID: worldNode, Availability: swarm.NodeActive, State: swarm.NodeReady, Role: "manager", Since: time.Now(),
		Description: swarm.NodeDescription{
			Hostname: "w1", OS: "linux", Arch: "amd64", Resources: swarm.Resources{NanoCPUs: 4e9, Memory: 8 << 30},
		},
	}})
	return w
}

// serve answers on the world's socket until stop is called.
func (w *world) serve(t testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	view, changes := storeView(w.store)
	clerk := &clerk{world: w}
	server := api.New(api.Config{
		View: view, Changes: changes, Blobs: w.blobs, Explain: explainStore, Scratch: t.TempDir(),
		Sources: clerk, Rollouts: clerk, Stacks: clerk, Volumes: clerk, Planner: clerk, Streams: clerk,
		Nodes: clerk, Keys: clerk, Upkeep: clerk, Users: clerk, Machine: &w.place, Node: worldNode,
		Version: api.Version{Version: "v0.0.0-test", Go: "go1"},
	})
	listener, err := api.Listen(strings.TrimPrefix(w.host, "unix://"))
	must(t, err)
	ended := make(chan error, 2)
	go func() { ended <- server.Serve(ctx, listener) }()
	users, config := w.listenForUsers(t)
	go func() { ended <- server.ServeUsers(ctx, users, config) }()
	return func() {
		cancel()
		must(t, errors.Join(<-ended, <-ended))
	}
}

// pin names the world's authority.
func (w *world) pin() string {
	cluster, _ := w.store.View().Cluster()
	block, _ := pem.Decode(cluster.Authority.Certificate)
	return api.PinOf(block.Bytes)
}

// listenForUsers listens, for a certificate of the world's authority.
func (w *world) listenForUsers(t testing.TB) (net.Listener, *tls.Config) {
	cluster, _ := w.store.View().Cluster()
	key, csr, err := identity.NewRequest()
	must(t, err)
	peer := identity.Peer{Node: worldNode, Role: swarm.RoleManager, Cluster: cluster.ID}
	chain, err := identity.Issue(cluster.Authority, csr, peer, time.Hour, time.Now())
	must(t, err)
	node, err := identity.Create(t.TempDir(), key, chain, cluster.Authority.Trust)
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w.users = "https://" + listener.Addr().String()
	config := node.Server("http/1.1")
	config.ClientAuth, config.VerifyConnection = tls.NoClientCert, nil
	return listener, config
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) do(command store.Command) {
	command.At = time.Now()
	if _, err := w.store.Propose(context.Background(), command); err != nil {
		panic(err) // scripts write commands that a healthy store takes
	}
}

func (w *world) record(name string) swarm.StackRecord {
	record, _ := w.store.View().Stack(swarm.StackName(name))
	return record
}

// commit is a revision by its first digits.
func commit(digits string) swarm.Revision {
	return swarm.NewRevision("main", digits+strings.Repeat("0", 40-len(digits)))
}

// render stores a stack of services written "web=2@web:1", with ":8080" behind
// a second "@" for a published port.
func (w *world) render(name, digits, author, subject string, services []string) swarm.Rendered {
	content := swarm.Stack{Name: swarm.StackName(name)}
	for _, text := range services {
		service, rest, _ := strings.Cut(text, "=")
		parts := strings.Split(rest, "@")
		replicas, err := strconv.Atoi(parts[0])
		must(w.t, err)
		spec := swarm.TaskSpec{Image: parts[1], Manifest: codec.DigestBytes([]byte(parts[1]))}
		digest, err := codec.Digest(spec)
		must(w.t, err)
		made := swarm.Service{Name: service, Task: spec, Spec: digest, Mode: swarm.Replicated, Replicas: replicas}
		if len(parts) == 3 {
			port, err := strconv.Atoi(parts[2])
			must(w.t, err)
			made.Ports = []swarm.Port{{Target: 80, Published: uint16(port), Protocol: swarm.TCP}}
		}
		content.Services = append(content.Services, made)
	}
	slices.SortFunc(content.Services, func(a, b swarm.Service) int { return cmp.Compare(a.Name, b.Name) })
	data, err := codec.Encode(content)
	must(w.t, err)
	digest, err := w.blobs.Put(context.Background(), data)
	must(w.t, err)
	return swarm.Rendered{Revision: commit(digits), Content: digest, Author: author, Subject: subject, Committed: time.Now()}
}

func (w *world) content(digest swarm.Digest) swarm.Stack {
	var content swarm.Stack
	data, err := w.blobs.Get(context.Background(), digest)
	must(w.t, err)
	must(w.t, codec.Decode(data, &content))
	return content
}

// command is `world` in a script.
func (w *world) command(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: world VERB ARGS…")
	}
	verb, args := args[0], args[1:]
	switch verb {
	case "watch": // URL
		w.do(store.Command{PutSource: &swarm.Source{ID: worldSource, URL: args[0], Branch: "main", Approved: true, Created: time.Now()}})
	case "seen": // COMMIT
		w.do(store.Command{SawSource: &store.SawSource{Source: worldSource, Status: swarm.SourceStatus{Head: commit(args[0]), Seen: time.Now()}}})
	case "broken": // PROBLEM
		w.do(store.Command{SawSource: &store.SawSource{Source: worldSource, Status: swarm.SourceStatus{Problem: args[0], Since: time.Now()}}})
	case "push": // STACK COMMIT AUTHOR SUBJECT SERVICE…
		w.accept(args[0], w.render(args[0], args[1], args[2], args[3], args[4:]), nil)
	case "hold": // STACK COMMIT KIND TEXT [PLAN]
		w.hold(args)
	case "roll": // STACK MESSAGE
		w.roll(args[0])
	case "healthy":
		w.settle(args[0])
	case "fail": // STACK SLOT WHY
		w.fail(args[0], args[1], args[2])
	case "phase": // STACK PHASE WHY
		w.phase(args[0], swarm.Phase(args[1]), args[2])
	case "volume": // STACK/NAME
		w.decide(swarm.StackName(strings.Split(args[0], "/")[0]), swarm.Decision{}, []swarm.KeptVolume{{ID: swarm.VolumeID(args[0]), Node: worldNode, Created: time.Now()}})
	case "orphan": // STACK/NAME
		w.decide(swarm.StackName(strings.Split(args[0], "/")[0]), swarm.Decision{}, []swarm.KeptVolume{{ID: swarm.VolumeID(args[0]), Node: worldNode, Created: time.Now(), Orphan: time.Now()}})
	case "node": // ID HOSTNAME ROLE
		w.do(store.Command{PutNode: &swarm.Node{
			ID: swarm.NodeID(args[0]), Availability: swarm.NodeActive, State: swarm.NodeReady, Role: args[2], Since: time.Now(),
			Description: swarm.NodeDescription{Hostname: args[1], OS: "linux", Arch: "amd64", Build: "b81e004", Address: "10.0.0.9:2377"},
		}})
	case "place": // MEMBERSHIP
		w.place.become(api.Membership(args[0]), "")
	case "asked": // TEXT: what the machine was asked last
		if w.place.asked != args[0] {
			ts.Fatalf("the machine was asked %q, want %q", w.place.asked, args[0])
		}
	case "down":
		node, _ := w.store.View().Node(worldNode)
		node.State, node.Since = swarm.NodeDown, time.Now()
		w.do(store.Command{PutNode: &node})
	case "log": // TASK TEXT
		w.log(args[0], args[1])
	default:
		ts.Fatalf("world does not know %q", verb)
	}
}

func (w *world) accept(name string, head swarm.Rendered, problem *swarm.Problem) {
	w.do(store.Command{AcceptStacks: &store.AcceptStacks{
		Source: worldSource, Status: swarm.SourceStatus{Head: head.Revision, Seen: time.Now()},
		Stacks: []store.AcceptStack{{Name: swarm.StackName(name), Path: name, Head: head, Problem: problem}},
	}})
}

func (w *world) hold(args []string) {
	problem := &swarm.Problem{Kind: swarm.ProblemKind(args[2]), Text: args[3]}
	head := swarm.Rendered{Revision: commit(args[1])}
	switch problem.Kind {
	case swarm.ProblemApproval:
		problem.Plan = args[4]
		head = w.render(args[0], args[1], "Ana", "held", []string{"web=1@held:1"})
	case swarm.ProblemPolicy:
		problem.Refuse = []swarm.Finding{{Rule: "privileged", Class: swarm.Refused, Service: "web", File: args[0] + "/compose.yaml", Line: 7, Text: args[3]}}
	}
	w.accept(args[0], head, problem)
}

func (w *world) decide(name swarm.StackName, decision swarm.Decision, volumes []swarm.KeptVolume) {
	record := w.record(string(name))
	decision.Stack, decision.Version = record.Name, record.Version
	w.do(store.Command{Decide: &store.Decide{Decision: decision, Volumes: volumes}})
}

// newTask is one more task of a service, asked to run.
func (w *world) newTask(record swarm.StackRecord, service swarm.Service, slot int, desired swarm.Desired) swarm.Task {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tasks++
	id := swarm.NewServiceID(record.Name, service.Name)
	return swarm.Task{
		ID: swarm.TaskID(fmt.Sprintf("%s.%d.t%03d", id, slot, w.tasks)), Service: id, Slot: slot, Node: worldNode,
		Spec: service.Spec, Generation: record.Generation[service.Name], Revision: record.Accepted.Revision,
		Rollout: record.Rollout.ID + 1, Desired: desired,
	}
}

// settle replaces every task by one of the accepted content, healthy.
func (w *world) settle(name string) {
	record := w.record(name)
	content := w.content(record.Accepted.Content)
	now := time.Now()
	rollout := &swarm.Rollout{
		ID: record.Rollout.ID + 1, From: record.Healthy, To: record.Accepted, Phase: swarm.PhaseHealthy, Began: now, Over: now,
	}
	decision := swarm.Decision{
		Rollout: rollout, Healthy: &record.Accepted,
		Ended:  &swarm.Ended{ID: rollout.ID, To: record.Accepted, Phase: swarm.PhaseHealthy, Began: now, Over: now},
		Events: []swarm.Event{{Kind: "rollout", Stack: record.Name, Revision: record.Accepted.Revision, Text: record.Accepted.Revision.Short() + " became healthy"}},
	}
	for _, task := range w.store.View().Tasks(record.Name) {
		decision.Forget = append(decision.Forget, task.ID)
	}
	for _, service := range content.Services {
		replicas, scaled := record.Scale[service.Name]
		if !scaled {
			replicas = service.Replicas
		}
		for slot := 1; slot <= replicas; slot++ {
			decision.Create = append(decision.Create, w.newTask(record, service, slot, swarm.DesiredRun))
		}
	}
	w.decide(record.Name, decision, nil)
	for _, task := range decision.Create {
		w.report(task.ID, swarm.TaskStatus{State: swarm.TaskStarting})
		w.report(task.ID, swarm.TaskStatus{State: swarm.TaskHealthy})
	}
}

func (w *world) report(task swarm.TaskID, status swarm.TaskStatus) {
	w.do(store.Command{ReportStatus: &store.ReportStatus{Tasks: []store.TaskReport{{Task: task, Status: status}}}})
}

// roll begins the rollout of the accepted content: its first task pulls.
func (w *world) roll(name string) {
	record := w.record(name)
	content := w.content(record.Accepted.Content)
	task := w.newTask(record, content.Services[0], 1, swarm.DesiredPrepare)
	w.decide(record.Name, swarm.Decision{
		Rollout: &swarm.Rollout{ID: record.Rollout.ID + 1, From: record.Healthy, To: record.Accepted, Phase: swarm.PhaseProgressing, Began: time.Now()},
		Create:  []swarm.Task{task},
	}, nil)
	w.report(task.ID, swarm.TaskStatus{State: swarm.TaskPreparing, Pulled: 61})
}

// fail ends the rollout that roll began: its task fails, the stack goes back.
func (w *world) fail(name, slot, why string) {
	record := w.record(name)
	var decision swarm.Decision
	for _, task := range w.store.View().Tasks(record.Name) {
		if task.Rollout == record.Rollout.ID {
			exit := 1
			decision.Desire = append(decision.Desire, swarm.Desire{Task: task.ID, Desired: swarm.DesiredStop})
			w.report(task.ID, swarm.TaskStatus{State: swarm.TaskStarting})
			w.report(task.ID, swarm.TaskStatus{State: swarm.TaskFailed, Exit: &exit, Message: "exited 1 after 2s", Cause: swarm.CauseContent})
		}
	}
	rollout, now := record.Rollout, time.Now()
	rollout.Phase, rollout.Why, rollout.FailedBy, rollout.Over = swarm.PhaseRolledBack, why, slot, now
	decision.Rollout = &rollout
	decision.Ended = &swarm.Ended{ID: rollout.ID, To: rollout.To, Phase: rollout.Phase, Began: rollout.Began, Over: now, Why: why}
	decision.Quarantine = &swarm.Quarantined{Content: rollout.To.Content, Revision: rollout.To.Revision, Why: why, At: now}
	decision.Events = []swarm.Event{{Kind: "rollout", Stack: record.Name, Revision: rollout.To.Revision, Text: "rolled back: " + why}}
	w.decide(record.Name, decision, nil)
}

func (w *world) phase(name string, phase swarm.Phase, why string) {
	record := w.record(name)
	rollout := swarm.Rollout{ID: record.Rollout.ID + 1, From: record.Healthy, To: record.Accepted, Phase: phase, Why: why, Began: time.Now()}
	w.decide(record.Name, swarm.Decision{Rollout: &rollout}, nil)
}

func (w *world) log(task, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, found := range w.store.View().AllTasks() {
		if strings.HasPrefix(string(found.ID), task) {
			w.lines = append(w.lines, swarm.LogLine{
				Task: found.ID, At: time.Date(2026, 1, 2, 3, 4, len(w.lines), 0, time.UTC), Text: []byte(text),
				Stderr: strings.HasPrefix(text, "error"),
			})
		}
	}
}
