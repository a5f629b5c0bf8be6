package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// wipeEnv makes this program, begun anew, clear the places that it lists.
const wipeEnv = "GITSWARM_LAB_WIPE"

// places are where a lab and its forks are, the lab itself first.
type places struct {
	mu   sync.Mutex
	list []string // "BIN|DIR|RUNDIR"; of hosts, whose /run is their own, no RUNDIR
}

func (l *Lab) place() string { return strings.Join([]string{l.Bin, l.Dir, l.RunDir}, "|") }

func (p *places) add(place string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, place)
}

func (p *places) remove(place string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = slices.DeleteFunc(p.list, func(other string) bool { return other == place })
}

// WipeWhen clears the lab and its forks away once ctx ends, whatever other
// goroutines are doing with them: the program begins anew, as one that only
// clears away. Its main must call WipeIfAsked first.
func (l *Lab) WipeWhen(ctx context.Context) {
	go func() {
		<-ctx.Done()
		l.places.mu.Lock() // for good: no fork is made any more
		list := strings.Join(l.places.list, "\n")
		err := syscall.Exec("/proc/self/exe", os.Args[:1], append(os.Environ(), wipeEnv+"="+list))
		fmt.Fprintln(os.Stderr, "clear away:", err)
		os.Exit(1)
	}()
}

// WipeIfAsked ends the program if it is one that WipeWhen has begun.
func WipeIfAsked() {
	list := os.Getenv(wipeEnv)
	if list == "" {
		return
	}
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	fmt.Fprintln(os.Stderr, "interrupted: clearing away containers, networks, registry, repositories")
	all := strings.Split(list, "\n")
	var errs []error
	for _, place := range slices.Backward(all) {
		errs = append(errs, wipe(place))
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(os.Stderr, "clear away:", err)
	}
	os.Exit(1)
}

// wipe removes what a daemon left that was told to end, and its folders.
func wipe(place string) error {
	parts := strings.Split(place, "|")
	if len(parts) != 3 {
		return fmt.Errorf("%q is no place", place)
	}
	bin, dir, runDir := parts[0], parts[1], parts[2]
	if runDir == "" {
		return wipeCluster(dir)
	}
	var last error
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil { // a daemon ran there
		err := Poll(context.Background(), time.Minute, "the daemon has ended", func() bool {
			text, err := exec.Command(bin, "leave", "--force", "--data-dir", filepath.Join(dir, "data"), "--run-dir", runDir).CombinedOutput()
			if err != nil {
				last = fmt.Errorf("leave: %w\n%s", err, text)
			}
			return err == nil
		})
		if err != nil {
			return errors.Join(err, last)
		}
	}
	return errors.Join(os.RemoveAll(runDir), os.RemoveAll(dir))
}
