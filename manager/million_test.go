package manager

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/manager/scheduler"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// A depot is a store on disk, alone, with a picture of it.
type depot struct {
	testing.TB
	store   *store.Store
	picture *picture
	reopen  func() *store.Store
}

func newDepot(t testing.TB) *depot {
	dir := t.TempDir()
	keyring, err := seal.Create(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	open := func() *store.Store {
		s, err := store.Open(store.Config{Dir: filepath.Join(dir, "raft"), Node: "n1", Keyring: keyring, SnapshotThreshold: 1 << 40})
		if err != nil {
			t.Fatal(err)
		}
		<-s.Leading()
		return s
	}
	d := &depot{TB: t, store: open(), reopen: open}
	d.picture = newPicture(d.store, func(*store.View, swarm.Task) *swarm.Claims { return nil })
	d.propose(store.Command{PutSource: &swarm.Source{ID: "main", URL: "file:///srv/main.git"}})
	t.Cleanup(func() { d.store.Close() })
	return d
}

func (d *depot) propose(c store.Command) {
	d.Helper()
	if _, err := d.store.Propose(context.Background(), c); err != nil {
		d.Fatal(err)
	}
}

// accept makes stacks known, so that something can be decided on them.
func (d *depot) accept(names ...swarm.StackName) {
	command := &store.AcceptStacks{Source: "main"}
	for _, name := range names {
		command.Stacks = append(command.Stacks, store.AcceptStack{
			Name: name, Head: swarm.Rendered{Revision: "main@sha1:1", Content: "sha256:1"},
		})
	}
	d.propose(store.Command{AcceptStacks: command})
}

// seatTasks places tasks and writes them into the log.
func (d *depot) seatTasks(stack swarm.StackName, wanted []scheduler.Wanted) {
	record, _ := d.store.View().Stack(stack)
	decision := swarm.Decision{Stack: stack, Version: record.Version}
	for i, p := range d.picture.place(wanted, nil) {
		if p.Node == "" {
			d.Fatal(p.Why)
		}
		w := wanted[i]
		decision.Create = append(decision.Create, swarm.Task{
			ID: w.Task, Service: w.Service, Slot: w.Slot, Node: p.Node, Desired: swarm.DesiredRun,
			Spec: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", Revision: record.Accepted.Revision,
			Addresses: []swarm.Address{{Network: swarm.NewNetworkID(stack, "default"), IP: fmt.Sprintf("10.0.%d.%d", i/250, i%250+2)}},
			Claims:    &swarm.Claims{Resources: w.Reservations},
		})
	}
	d.propose(store.Command{Decide: &store.Decide{Decision: decision}})
}

// BenchmarkMillion takes 1,000,000 tasks (1,000 stacks of 10 services of 100
// replicas, each with reservations) on 10,000 nodes through the picture, the
// scheduler, the log and the state, one stack after the other as the leader
// does; then through a snapshot and a restart from it.
func BenchmarkMillion(b *testing.B) {
	const nodes, stacks, services, replicas = 10_000, 1_000, 10, 100
	for b.Loop() {
		d := newDepot(b)
		d.putNodes(nodes)
		names := make([]swarm.StackName, stacks)
		for i := range names {
			names[i] = swarm.StackName(fmt.Sprintf("stack%d", i))
		}
		d.accept(names...)

		began := time.Now()
		for _, name := range names {
			d.seatTasks(name, wantedOfStack(name, services, replicas))
		}
		b.ReportMetric(stacks*services*replicas/time.Since(began).Seconds(), "placements/s")

		began = time.Now()
		fresh := newPicture(d.store, nil)
		fresh.place(wantedOfStack("another", 1, 1), nil)
		b.ReportMetric(time.Since(began).Seconds(), "s/picture")
		d.snapshotAndRestart(b)
	}
}

func (d *depot) snapshotAndRestart(b *testing.B) {
	began := time.Now()
	if err := d.store.Snapshot(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(began).Seconds(), "s/snapshot")
	if err := d.store.Close(); err != nil {
		b.Fatal(err)
	}

	began = time.Now()
	before := d.store.View()
	d.store = d.reopen()
	b.ReportMetric(time.Since(began).Seconds(), "s/restore")
	task := swarm.TaskID("stack999/web9.100.k3x9q2")
	was, _ := before.Task(task)
	is, there := d.store.View().Task(task)
	if !there || is.Node != was.Node || len(d.store.View().AllTasks()) != 1_000_000 {
		b.Fatalf("after the restart, %s is %+v", task, is)
	}
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	b.ReportMetric(float64(memory.HeapAlloc)/(1<<20), "MiB-heap") // two states: before and after the restart
}

func (d *depot) putNodes(nodes int) {
	var group errgroup.Group
	group.SetLimit(64) // they share fsyncs
	for i := range nodes {
		group.Go(func() error {
			_, err := d.store.Propose(context.Background(), store.Command{PutNode: &swarm.Node{
				ID: swarm.NodeID(fmt.Sprintf("node%05d", i)), State: swarm.NodeReady, Role: swarm.RoleWorker,
				Description: swarm.NodeDescription{Hostname: fmt.Sprintf("host%d", i), OS: "linux", Arch: "amd64", Resources: swarm.Resources{NanoCPUs: 128e9, Memory: 128 << 30}},
			}})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		d.Fatal(err)
	}
}

func wantedOfStack(stack swarm.StackName, services, replicas int) []scheduler.Wanted {
	var wanted []scheduler.Wanted
	for service := range services {
		name := fmt.Sprintf("web%d", service)
		for slot := range replicas {
			wanted = append(wanted, scheduler.Wanted{
				Task:    swarm.TaskID(fmt.Sprintf("%s/%s.%d.k3x9q2", stack, name, slot+1)),
				Service: swarm.NewServiceID(stack, name), Slot: slot + 1,
				Reservations: swarm.Resources{NanoCPUs: 1e9, Memory: 1 << 30}, Platforms: []string{"linux/amd64"},
			})
		}
	}
	return wanted
}
