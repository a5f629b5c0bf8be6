package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

// cycles is how often a manager is killed: few in `make test`, SOAK_CYCLES
// times in `make soak`.
func cycles(t *testing.T, few int) int {
	text := os.Getenv("GITSWARM_SOAK_CYCLES")
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

func TestSoakKilledManagersLoseNoAcknowledgedWriteAndDoubleNoTask(t *testing.T) {
	c := calm(t)
	const replicas = 5
	c.deploy(replicas, "", "")
	before := running(t, c.Hosts...)
	w := write(c)
	var weights [][2]weight // of the workers' daemons, which are never killed

	for cycle := range cycles(t, 3) {
		killed := c.Hosts[rand.IntN(managers)]
		killed.Kill()
		off := time.Duration(rand.IntN(2000)) * time.Millisecond
		pause(t, off)
		must(t, killed.StartDaemon(t.Context()))
		w.more(t)
		c.until(killed.Name+" answers", func() bool {
			_, err := killed.Nodes(t.Context())
			return err == nil
		})
		w.check(c, c.Hosts[rand.IntN(managers)])
		if now := running(t, c.Hosts...); survivors(before, now) != replicas || len(now) != replicas {
			t.Fatalf("cycle %d (%s off for %s): containers are %v, want %v untouched", cycle, killed.Name, off, now, before)
		}
		weights = append(weights, [2]weight{weigh(t, c.Hosts[3]), weigh(t, c.Hosts[4])})
		if t.Failed() {
			t.Fatalf("in cycle %d (%s off for %s)", cycle, killed.Name, off)
		}
	}
	w.end(t)
	stayedFlat(t, weights)
}

// keysWritten is how many labels the writer turns through.
const keysWritten = 16

// A writer sets labels to ever higher numbers, one after the other, at any
// manager that takes them.
type writer struct {
	stop context.CancelFunc
	gone sync.WaitGroup

	mu           sync.Mutex
	tried, acked [keysWritten]int
	total        int
}

func write(c *cluster) *writer {
	w := new(writer)
	ctx, stop := context.WithCancel(c.t.Context())
	w.stop = stop
	c.t.Cleanup(func() {
		stop()
		w.gone.Wait()
	})
	w.gone.Go(func() {
		for i := 1; ctx.Err() == nil; i++ {
			w.write(ctx, c, i)
		}
	})
	return w
}

// write sets one label, and goes on until a manager says that it is set.
func (w *writer) write(ctx context.Context, c *cluster, i int) {
	key := i % keysWritten
	w.mu.Lock()
	w.tried[key] = i
	w.mu.Unlock()
	for ctx.Err() == nil {
		at := c.Hosts[rand.IntN(managers)]
		if _, exit := at.Run(ctx, "node", "label", "n5", fmt.Sprintf("w%d=%d", key, i)); exit == 0 {
			w.mu.Lock()
			w.acked[key] = i
			w.total++
			w.mu.Unlock()
			return
		}
	}
}

// more waits until another write was acknowledged.
func (w *writer) more(t *testing.T) {
	t.Helper()
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.total
	}
	seen := count()
	must(t, lab.Poll(t.Context(), time.Minute, "another write is acknowledged", func() bool { return count() > seen }))
}

// check reads the labels and expects what was acknowledged before, or newer.
func (w *writer) check(c *cluster, at *lab.Host) {
	c.t.Helper()
	w.mu.Lock()
	acked := w.acked
	w.mu.Unlock()
	nodes, err := at.Nodes(c.t.Context())
	must(c.t, err)
	w.mu.Lock()
	tried := w.tried
	w.mu.Unlock()
	for key := range keysWritten {
		value, _ := strconv.Atoi(nodes["n5"].Labels[fmt.Sprintf("w%d", key)])
		if value < acked[key] || value > tried[key] {
			c.t.Errorf("%s reads w%d=%d, want %d, which was acknowledged, to %d, which was tried", at.Name, key, value, acked[key], tried[key])
		}
	}
}

func (w *writer) end(t *testing.T) {
	w.stop()
	w.gone.Wait()
	t.Logf("%d writes were acknowledged", w.total)
}

// weight is what a daemon holds.
type weight struct{ kib, files int }

func weigh(t *testing.T, h *lab.Host) (now weight) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.PID()))
	must(t, err)
	for line := range strings.Lines(string(status)) {
		if text, found := strings.CutPrefix(line, "VmRSS:"); found {
			now.kib, err = strconv.Atoi(strings.Fields(text)[0])
			must(t, err)
		}
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", h.PID()))
	must(t, err)
	now.files = len(files)
	return now
}

// stayedFlat expects that the last tenth of the cycles found no more memory and
// files than the second: in the first, caches fill.
func stayedFlat(t *testing.T, weights [][2]weight) {
	t.Helper()
	tenth := len(weights) / 10
	if tenth < 5 {
		return // a leak does not show in so few
	}
	early, late := mean(weights[tenth:2*tenth]), mean(weights[len(weights)-tenth:])
	t.Logf("a worker's daemon held %d KiB and %d files early, %d KiB and %d files late", early.kib, early.files, late.kib, late.files)
	if late.kib > early.kib*5/4+8<<10 || late.files > early.files+8 {
		t.Errorf("a worker's daemon grew from %+v to %+v", early, late)
	}
}

func mean(weights [][2]weight) (sum weight) {
	for _, pair := range weights {
		for _, one := range pair {
			sum.kib += one.kib
			sum.files += one.files
		}
	}
	n := 2 * len(weights)
	return weight{sum.kib / n, sum.files / n}
}
