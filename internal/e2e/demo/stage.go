package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/internal/e2e/lab"
)

// A stage is where the story is told.
type stage struct {
	out      io.Writer
	began    time.Time
	lab      *lab.Lab
	repo     *lab.Repo
	port     int
	visitors visitors
	events   *exec.Cmd
	printing sync.Mutex
}

// set builds, pushes the images and starts the daemon.
func set(ctx context.Context, out io.Writer) (*stage, error) {
	s := &stage{out: out, began: time.Now()}
	s.say("building gitswarm and the example's web server (the first time takes minutes)")
	log, err := os.CreateTemp("", "gitswarm-demo-*.log")
	if err != nil {
		return nil, err
	}
	defer os.Remove(log.Name()) // from then on only those who have it open need it
	s.lab, err = lab.New(ctx, log)
	if err != nil {
		return nil, err
	}
	if err := s.furnish(ctx); err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%w\nthe daemon's log:\n%s%w", err, text, s.clear())
	}
	return s, nil
}

func (s *stage) furnish(ctx context.Context) (err error) {
	if s.port, err = lab.FreePort(); err != nil {
		return err
	}
	s.say("a registry is at %s; pushing app:v1, v2, v3 (broken), v4", s.lab.Registry)
	for tag, env := range map[string][]string{"v1": nil, "v2": nil, "v3": {"APP_EXIT_AFTER=2s", "APP_EXIT_CODE=3"}, "v4": nil} {
		if err := s.lab.PushApp(tag, env...); err != nil {
			return err
		}
	}
	if s.repo, err = s.lab.NewRepo("hello"); err != nil {
		return err
	}
	example, err := lab.Example(ctx, "hello")
	if err != nil {
		return err
	}
	if err := s.repo.Copy(example); err != nil {
		return err
	}
	s.say("starting gitswarm daemon with its own folders in %s", s.lab.Dir)
	if _, err := s.lab.StartDaemon(ctx); err != nil {
		return err
	}
	return s.follow(ctx)
}

// follow prints the cluster's events as they happen.
func (s *stage) follow(ctx context.Context) error {
	s.events = exec.CommandContext(ctx, s.lab.Bin, "events", "--follow")
	s.events.Env = append(os.Environ(), "GITSWARM_HOST=unix://"+s.lab.Socket(), "NO_COLOR=1")
	pipe, err := s.events.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.events.Start(); err != nil {
		return fmt.Errorf("follow events: %w", err)
	}
	go func() {
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			s.say("  | %s", lines.Text())
		}
	}()
	return nil
}

func (s *stage) clear() error {
	s.visitors.stop()
	if s.events != nil && s.events.Process != nil {
		_ = s.events.Process.Kill() // it may have ended with the story
		_ = s.events.Wait()         // reports that signal
	}
	return s.lab.Close()
}

// say prints a line with the time since the demo began.
func (s *stage) say(format string, args ...any) {
	s.printing.Lock()
	defer s.printing.Unlock()
	fmt.Fprintf(s.out, "%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// push commits the version and returns its commit.
func (s *stage) push(message, version string) (string, error) {
	env := fmt.Sprintf("REGISTRY=%s\nTAG=%s\nPORT=%d\n", s.lab.Registry, version, s.port)
	if err := s.repo.Write(map[string]string{filepath.Join("web", ".env"): env}); err != nil {
		return "", err
	}
	return s.repo.Push(message)
}

// command runs gitswarm, shows it, and expects an exit code.
func (s *stage) command(ctx context.Context, want int, args ...string) error {
	s.say("$ gitswarm %s", strings.Join(args, " "))
	text, exit := s.lab.Run(ctx, args...)
	for line := range strings.Lines(text) {
		s.say("  %s", strings.TrimRight(line, "\n"))
	}
	if exit != want {
		return fmt.Errorf("gitswarm %s exited %d, want %d", args[0], exit, want)
	}
	return nil
}

func (s *stage) url() string { return fmt.Sprintf("http://127.0.0.1:%d/", s.port) }

// get opens a new connection, as a new visitor does.
func get(url string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<16))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", url, answer.Status)
	}
	return strings.TrimSpace(string(text)), err
}

// visitors ask the web service again and again, and count.
type visitors struct {
	cancel context.CancelFunc
	gone   sync.WaitGroup

	mu       sync.Mutex
	answered int
	failed   int
	first    error // of those that failed
}

func (v *visitors) start(ctx context.Context, url string) {
	ctx, v.cancel = context.WithCancel(ctx)
	v.gone.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				_, err := get(url)
				v.count(err)
			}
		}
	})
}

func (v *visitors) count(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err == nil {
		v.answered++
		return
	}
	v.failed++
	if v.first == nil {
		v.first = fmt.Errorf("at %s: %w", time.Now().UTC().Format(time.TimeOnly), err)
	}
}

// tally returns the counts since it was last asked.
func (v *visitors) tally() (answered, failed int, first error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	answered, failed, first = v.answered, v.failed, v.first
	v.answered, v.failed, v.first = 0, 0, nil
	return answered, failed, first
}

func (v *visitors) stop() {
	if v.cancel != nil {
		v.cancel()
		v.gone.Wait()
	}
}
