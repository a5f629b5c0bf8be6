package store

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

func BenchmarkOpen(b *testing.B) {
	p := newPlace(b)
	for b.Loop() {
		shut(b, p.open(b))
	}
}

func BenchmarkPropose(b *testing.B) {
	s := newPlace(b).open(b)
	propose(b, s, putSource("main"))
	for b.Loop() {
		propose(b, s, accept("shop", "v1"))
	}
}

// BenchmarkProposeTogether: 64 proposers share fsyncs.
func BenchmarkProposeTogether(b *testing.B) {
	s := newPlace(b).open(b)
	propose(b, s, putSource("main"))
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Propose(b.Context(), accept("shop", "v1")); err != nil {
				b.Error(err)
			}
		}
	})
}

// withTasks has that many tasks in stacks of 100.
func withTasks(b *testing.B, n int) *log {
	l := newLog(b)
	l.do(putSource("main"))
	for first := 0; first < n; first += 100 {
		stack := swarm.StackName(fmt.Sprintf("stack%d", first/100))
		l.do(accept(string(stack), "v1"))
		var tasks []swarm.Task
		for i := range 100 {
			tasks = append(tasks, swarm.Task{
				ID:      swarm.TaskID(fmt.Sprintf("%s/web.%d.k3x9q2", stack, i)),
				Service: swarm.NewServiceID(stack, "web"), Slot: i + 1, Node: swarm.NodeID(fmt.Sprintf("n%d", i)),
				Spec: rendered("v1").Content, Revision: rendered("v1").Revision, Desired: swarm.DesiredRun,
				Addresses: []swarm.Address{{Network: swarm.NewNetworkID(stack, "default"), IP: "10.0.0.2"}},
			})
		}
		l.do(Command{Decide: &Decide{Decision: swarm.Decision{Stack: stack, Version: l.stack(stack).Version, Create: tasks}}})
	}
	return l
}

func BenchmarkViewOfOneStackAmong100kTasks(b *testing.B) {
	l := withTasks(b, 100_000)
	for b.Loop() {
		if n := len(l.view().Tasks("stack500")); n != 100 {
			b.Fatal(n)
		}
	}
}

func BenchmarkReportAmong100kTasks(b *testing.B) {
	l := withTasks(b, 100_000)
	for i := 0; b.Loop(); i++ {
		l.do(l.report("stack500/web.1.k3x9q2", swarm.TaskStatus{State: swarm.TaskPreparing, Pulled: i}))
	}
}

func BenchmarkSnapshotOf100kTasks(b *testing.B) {
	l := withTasks(b, 100_000)
	var out bytes.Buffer
	for b.Loop() {
		out.Reset()
		if err := writeState(&out, l.db.Txn(false)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(out.Len()), "bytes")
}

func BenchmarkRestoreOf100kTasks(b *testing.B) {
	l := withTasks(b, 100_000)
	var out bytes.Buffer
	if err := writeState(&out, l.db.Txn(false)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := readState(bytes.NewReader(out.Bytes())); err != nil {
			b.Fatal(err)
		}
	}
}

// TestIdlesNearlyForNothing bounds what a manager that is alone costs while
// nothing happens: less than 0.1 % of a core is the aim; the bound leaves room
// for the test's own runtime.
func TestIdlesNearlyForNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	s := newPlace(t).open(t)
	propose(t, s, putSource("main"))
	runtime.GC()
	before, began := cpu(t), time.Now()
	time.Sleep(3 * time.Second)
	share := float64(cpu(t)-before) / float64(time.Since(began))
	t.Logf("%.3f %% of a core", 100*share)
	if share > 0.005 {
		t.Errorf("idles at %.2f %% of a core", 100*share)
	}
}

func cpu(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkSnapshotOfAMillionTasks gives what a snapshot of 1,000,000 tasks on
// 10,000 nodes costs: to write, to find whole, to read back.
func BenchmarkSnapshotOfAMillionTasks(b *testing.B) {
	l := withTasks(b, 1_000_000)
	snaps := &snapshots{dir: b.TempDir(), keyring: newPlace(b).keyring}
	for b.Loop() {
		began := time.Now()
		sink, err := snaps.Create(1, 1, 1, alone("m1", "m1"), 1, nil)
		if err != nil {
			b.Fatal(err)
		}
		if err := writeState(sink, l.db.Txn(false)); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "write-s")
		began = time.Now()
		if err := sink.Close(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "check-s")

		path := snaps.dir + "/" + sink.ID() + snapSuffix
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size())/1e6, "MB")
		began = time.Now()
		if _, _, err := snaps.read(path); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "read-s")
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	b.ReportMetric(float64(memory.HeapAlloc)/1e6, "heap-MB")
}
