package manager

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/gitswarm/gitswarm/gitsync"
	"github.com/gitswarm/gitswarm/gitsync/compose"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/manager/registry"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// TestMain lets this program be the child that loads compose files.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == compose.ChildArgument {
		if err := compose.ServeChild(os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A site is a whole manager in this process: a real log, real blobs, a real
// repository and a real registry. Only the nodes' agents are played.
type site struct {
	*testing.T
	config   Config
	manager  *Manager
	stop     func()
	repo     string
	registry string
	source   swarm.SourceID
}

func newSite(t *testing.T) *site {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	keyring, err := seal.Create(filepath.Join(dir, "keys"))
	must(t, err)
	kept, err := blobs.Open(filepath.Join(dir, "blobs"), keyring)
	must(t, err)
	state, err := store.Open(store.Config{Dir: filepath.Join(dir, "raft"), Node: "n1", Keyring: keyring})
	must(t, err)
	t.Cleanup(func() { state.Close() })
	images := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(images.Close)
	client, err := registry.New(registry.Config{})
	must(t, err)

	s := &site{T: t, repo: filepath.Join(dir, "repo"), registry: strings.TrimPrefix(images.URL, "http://")}
	s.config = Config{Node: "n1", Store: state, Blobs: kept, Registry: client, Syncer: gitsync.New(gitsync.Config{Dir: filepath.Join(dir, "git")})}
	s.git(dir, "init", "-q", "-b", "main", s.repo)
	s.lead()
	t.Cleanup(func() { s.stop() })
	s.propose(store.Command{PutNode: &swarm.Node{ID: "n1", State: swarm.NodeReady, Role: "manager", Description: swarm.NodeDescription{
		Hostname: "one", OS: "linux", Arch: "amd64", Resources: swarm.Resources{NanoCPUs: 4e9, Memory: 8 << 30},
	}}})
	agents, stopAgents := context.WithCancel(context.Background())
	t.Cleanup(stopAgents)
	go s.playAgent(agents)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lead begins a term, after ending the one before: a daemon that starts again.
func (s *site) lead() {
	s.Helper()
	if s.stop != nil {
		s.stop()
	}
	m, err := New(s.config)
	must(s.T, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	if s.manager == nil {
		go func() { ended <- m.Run(ctx) }()
	} else { // the store tells of its leader once
		go func() { ended <- m.lead(ctx) }()
	}
	s.manager = m
	s.stop = func() {
		cancel()
		if err := <-ended; ofTerm(err) {
			s.Error(err)
		}
	}
	s.until("a leader", func(v *store.View) bool { return v.ClusterID() != "" })
}

func (s *site) propose(c store.Command) {
	s.Helper()
	c.At = time.Now()
	_, err := s.config.Store.Propose(s.Context(), c)
	must(s.T, err)
}

// playAgent says of each task that it has become what it was asked to be.
func (s *site) playAgent(ctx context.Context) {
	touched := s.config.Store.Subscribe()
	defer touched.Close()
	for {
		_, changed := touched.Take()
		var report store.ReportStatus
		for _, task := range s.config.Store.View().AllTasks() {
			if state := obedient(task); task.Node != "" && task.Status.State.Live() && state != task.Status.State {
				report.Tasks = append(report.Tasks, store.TaskReport{Task: task.ID, Status: swarm.TaskStatus{State: state, Drained: state == swarm.TaskHealthy && task.Desired == swarm.DesiredDrain}})
			}
		}
		if len(report.Tasks) > 0 {
			_, _ = s.config.Store.Propose(ctx, store.Command{At: time.Now(), ReportStatus: &report}) // the test may be over
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

func obedient(task swarm.Task) swarm.TaskState {
	switch {
	case task.Desired >= swarm.DesiredStop:
		return swarm.TaskStopped
	case task.Desired >= swarm.DesiredRun:
		return swarm.TaskHealthy
	}
	return swarm.TaskPrepared
}

// push commits files, an empty one meaning that its folder goes.
func (s *site) push(files map[string]string) {
	s.Helper()
	for path, text := range files {
		path = filepath.Join(s.repo, path)
		if text == "" {
			must(s.T, os.RemoveAll(filepath.Dir(path)))
			continue
		}
		must(s.T, os.MkdirAll(filepath.Dir(path), 0o755))
		must(s.T, os.WriteFile(path, []byte(strings.ReplaceAll(text, "REGISTRY", s.registry)), 0o600))
	}
	s.git(s.repo, "add", "-A")
	s.git(s.repo, "-c", "user.name=Ana", "-c", "user.email=ana@example.org", "commit", "-qm", "a change")
	if s.source == "" {
		s.source = s.watch()
	}
}

func (s *site) watch() swarm.SourceID {
	s.Helper()
	id, err := s.manager.AddSource(s.Context(), api.NewSource{URL: s.repo, Branch: "main", Approved: true}, "ana")
	must(s.T, err)
	return id
}

func (s *site) git(dir string, args ...string) {
	s.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		s.Fatalf("git %v: %v: %s", args, err, out)
	}
}

func (s *site) image(tag string) {
	s.Helper()
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", Author: tag})
	must(s.T, err)
	ref, err := name.ParseReference(s.registry + "/web:" + tag)
	must(s.T, err)
	must(s.T, remote.Write(ref, image))
}

// until waits for the state that a claim is about.
func (s *site) until(claim string, holds func(*store.View) bool) {
	s.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds(s.config.Store.View()) {
		if time.Now().After(deadline) {
			view := s.config.Store.View()
			for _, record := range view.Stacks() {
				s.Logf("%s: %+v problem %+v", record.Name, record.Rollout, record.Problem)
			}
			s.Fatalf("never came: %s", claim)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// healthy waits until a stack runs what the newest commit says of it, and
// returns its content's digest.
func (s *site) healthy(name swarm.StackName) swarm.StackRecord {
	s.Helper()
	var record swarm.StackRecord
	s.until(string(name)+" is healthy", func(v *store.View) bool {
		record, _ = v.Stack(name)
		return record.Problem == nil && record.Rollout.Phase == swarm.PhaseHealthy && record.Healthy == record.Accepted && record.Accepted == record.Head
	})
	return record
}

func (s *site) synced() {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 10*time.Second)
	defer cancel()
	must(s.T, s.manager.SyncSource(ctx, s.source))
}

func web(image, more string) string {
	return "services:\n  web:\n    image: REGISTRY/web:" + image + "\n    deploy: {update_config: {monitor: 0s}}\n" + more
}

func TestACommitGoesTheWholeWayToTasks(t *testing.T) {
	s := newSite(t)
	s.image("1")
	s.push(map[string]string{"shop/compose.yaml": web("1", "    ports: [\"8080:80\"]\n"), "blog/compose.yaml": web("1", "")})
	shop := s.healthy("shop")
	s.healthy("blog")

	tasks := s.config.Store.View().Tasks("shop")
	if len(tasks) != 1 || tasks[0].Node != "n1" || len(tasks[0].Addresses) != 1 || tasks[0].Revision != shop.Head.Revision {
		t.Errorf("shop has the tasks %+v, want one on n1 with an address", tasks)
	}
	if endpoint, _ := s.config.Store.View().Endpoint("shop/web"); len(endpoint.Ports) != 1 || endpoint.Ports[0].Published != 8080 || len(endpoint.VIPs) != 1 {
		t.Errorf("shop/web has the endpoint %+v, want port 8080 and a virtual address", endpoint)
	}
}

func TestAStackThatWaitsForItsImageGoesOnWhateverIsAnsweredMeanwhile(t *testing.T) {
	s := newSite(t)
	s.image("1")
	s.push(map[string]string{"shop/compose.yaml": web("later", ""), "blog/compose.yaml": web("1", "")})
	s.until("shop waits", func(v *store.View) bool {
		record, _ := v.Stack("shop")
		return record.Problem != nil && record.Problem.Kind == swarm.ProblemWaiting
	})
	s.push(map[string]string{"blog/compose.yaml": web("1", "    hostname: blog\n")})
	s.healthy("blog")
	s.synced() // an answer without news
	version := s.record("shop").Version
	time.Sleep(2500 * time.Millisecond) // it is tried again, and that is no news either
	if now := s.record("shop").Version; now != version {
		t.Errorf("trying again was written down: version %d became %d", version, now)
	}
	s.image("later")
	s.healthy("shop")
}

func (s *site) record(name swarm.StackName) swarm.StackRecord {
	record, _ := s.config.Store.View().Stack(name)
	return record
}

func TestAChangeOfAnyFileThatAStackReadsIsSeenAfterARestart(t *testing.T) {
	s := newSite(t)
	s.image("1")
	s.push(map[string]string{"shop/compose.yaml": web("1", "    env_file: ../common/web.env\n"), "common/web.env": "A=1\n"})
	before := s.healthy("shop")
	s.lead()
	s.synced()
	s.push(map[string]string{"common/web.env": "A=2\n"})
	s.until("shop has the new content", func(v *store.View) bool {
		record, _ := v.Stack("shop")
		return record.Accepted.Content != before.Accepted.Content
	})
}

func TestASecondSourceLeavesTheStacksOfTheFirstAlone(t *testing.T) {
	s := newSite(t)
	s.image("1")
	s.push(map[string]string{"shop/compose.yaml": web("1", "")})
	first, before := s.source, s.healthy("shop")
	s.repo += "-2"
	s.git(filepath.Dir(s.repo), "init", "-q", "-b", "main", s.repo)
	s.source = ""
	s.push(map[string]string{"shop/compose.yaml": web("1", "    hostname: other\n"), "blog/compose.yaml": web("1", "")})
	s.healthy("blog")
	s.until("the second source says why", func(v *store.View) bool {
		source, _ := v.Source(s.source)
		return strings.Contains(source.Status.Problem, `stack "shop" belongs to source `+string(first))
	})
	if now := s.record("shop"); now.Version != before.Version || now.Source != first {
		t.Errorf("shop's record became %+v", now)
	}
	s.synced()
	if source, _ := s.config.Store.View().Source(s.source); source.Status.Problem == "" {
		t.Error("an answer without news took the problem away")
	}

	must(t, s.manager.RemoveSource(t.Context(), first, "ana"))
	s.push(map[string]string{"shop/compose.yaml": web("1", "    hostname: another\n")})
	s.until("the second source takes shop over", func(v *store.View) bool {
		record, _ := v.Stack("shop")
		return record.Source == s.source && record.Problem == nil
	})
}

func TestARenameThatWaitsRemovesNothing(t *testing.T) {
	s := newSite(t)
	s.image("1")
	files := map[string]string{"shop/compose.yaml": web("1", "")}
	for i := range 9 { // so that one of them may go unasked
		files[fmt.Sprintf("s%d/compose.yaml", i)] = web("1", "")
	}
	s.push(files)
	s.healthy("shop")
	task := s.config.Store.View().Tasks("shop")[0].ID

	s.push(map[string]string{"shop/compose.yaml": "", "store/compose.yaml": "x-gitswarm: {was: shop}\n" + web("later", "")})
	s.until("store waits", func(v *store.View) bool { record, _ := v.Stack("store"); return record.Problem != nil })
	s.push(map[string]string{"s1/compose.yaml": web("1", "    hostname: s1\n")})
	s.synced()
	if shop := s.record("shop"); shop.Removing || shop.Name == "" {
		t.Fatal("shop is removed while its new name waits")
	}
	s.image("later")
	s.until("store has taken over", func(v *store.View) bool {
		tasks := v.Tasks("store")
		_, shop := v.Stack("shop")
		return !shop && slices.ContainsFunc(tasks, func(t swarm.Task) bool { return t.ID == task })
	})
	s.healthy("store")
}

func TestContentThatCannotBeAllocatedTouchesNothingAndStopsNothing(t *testing.T) {
	s := newSite(t)
	s.image("1")
	network := "networks: {default: {ipam: {config: [{subnet: %s}]}}}\n"
	s.push(map[string]string{"shop/compose.yaml": web("1", "    ports: [\"8080:80\"]\n"+fmt.Sprintf(network, "10.66.0.0/24"))})
	s.healthy("shop")
	s.push(map[string]string{"shop/compose.yaml": web("1", "    ports: [\"8081:80\"]\n"+fmt.Sprintf(network, "10.77.0.0/24"))})
	s.until("shop waits and says why", func(v *store.View) bool {
		record, _ := v.Stack("shop")
		return record.Rollout.Phase == swarm.PhaseWaiting && strings.Contains(record.Rollout.Why, "can't become 10.77.0.0/24")
	})

	exit := 1
	died := s.config.Store.View().Tasks("shop")[0].ID
	s.propose(store.Command{ReportStatus: &store.ReportStatus{Tasks: []store.TaskReport{{Task: died, Status: swarm.TaskStatus{State: swarm.TaskFailed, Exit: &exit, Cause: swarm.CauseContent}}}}})
	s.until("a task that died meanwhile has a successor", func(v *store.View) bool {
		return slices.ContainsFunc(v.Tasks("shop"), func(t swarm.Task) bool { return t.ID != died && t.Status.State == swarm.TaskHealthy })
	})
	if endpoint, _ := s.config.Store.View().Endpoint("shop/web"); endpoint.Ports[0].Published != 8080 {
		t.Errorf("port %d is published while the content that asks for it waits", endpoint.Ports[0].Published)
	}
}

func TestAGrantThatIsTakenBackIsHeededByTheNextLeader(t *testing.T) {
	s := newSite(t)
	s.image("1")
	s.config.Grants = []swarm.Grant{{Stack: "shop", Rule: "privileged"}}
	s.lead()
	s.push(map[string]string{"shop/compose.yaml": web("1", "    privileged: true\n")})
	s.healthy("shop")
	s.config.Grants = nil
	s.lead()
	s.until("shop is refused", func(v *store.View) bool {
		record, _ := v.Stack("shop")
		return record.Problem != nil && record.Problem.Kind == swarm.ProblemPolicy
	})
	s.config.Grants = []swarm.Grant{{Stack: "shop", Rule: "privileged"}}
	s.lead()
	s.healthy("shop")
}
