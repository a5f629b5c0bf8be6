package api

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// blank is a cluster that holds nothing and can do nothing but plan.
type blank struct{ planned []string }

func (blank) Index() uint64                                        { return 1 }
func (blank) Now() time.Time                                       { return time.Time{} }
func (blank) Sources() []swarm.Source                              { return nil }
func (blank) Stacks() []swarm.StackRecord                          { return nil }
func (blank) Stack(swarm.StackName) (r swarm.StackRecord, ok bool) { return r, false }
func (blank) Tasks(swarm.StackName) []swarm.Task                   { return nil }
func (blank) Task(swarm.TaskID) (t swarm.Task, ok bool)            { return t, false }
func (blank) Nodes() []swarm.Node                                  { return nil }
func (blank) Endpoints() []swarm.Endpoint                          { return nil }
func (blank) Volumes() []swarm.KeptVolume                          { return nil }
func (blank) Grants() []swarm.Grant                                { return nil }
func (blank) Cluster() (c swarm.Cluster, ok bool)                  { return c, false }
func (blank) Tokens() []swarm.UserToken                            { return nil }
func (blank) Events(uint64, int) []swarm.Event                     { return nil }

func (b *blank) Plan(_ context.Context, request PlanRequest) (PlanResult, error) {
	err := filepath.WalkDir(request.Dir, func(name string, entry os.DirEntry, err error) error {
		relative, _ := filepath.Rel(request.Dir, name)
		b.planned = append(b.planned, relative)
		return err
	})
	return PlanResult{}, err
}

func newBlank(t *testing.T) (*Server, *blank) {
	b := &blank{}
	return New(Config{View: func() View { return b }, Planner: b, Scratch: t.TempDir()}), b
}

func ask(s *Server, method, path, kind string, body io.Reader) *http.Response {
	request := httptest.NewRequest(method, path, body)
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	recorder := httptest.NewRecorder()
	s.Handler().ServeHTTP(recorder, request)
	return recorder.Result()
}

func TestDocumentListsEveryRoute(t *testing.T) {
	server, _ := newBlank(t)
	answer := ask(server, "GET", "/openapi.json", "", nil)
	var document struct {
		OpenAPI string                    `json:"openapi"`
		Paths   map[string]map[string]any `json:"paths"`
	}
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &document); err != nil || document.OpenAPI != "3.1.0" {
		t.Fatalf("document %q is not OpenAPI 3.1: %v", document.OpenAPI, err)
	}

	// What the sources register is what the document must list.
	route := regexp.MustCompile(`"(/v1/[^"]*)"`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, match := range route.FindAllSubmatch(source, -1) {
			found++
			if document.Paths[string(match[1])] == nil {
				t.Errorf("%s registers %s, which the document does not list", file, match[1])
			}
		}
	}
	if found < 30 {
		t.Errorf("found %d routes in the sources, want all of them", found)
	}

	// Every reference leads somewhere.
	var all any
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	for _, match := range regexp.MustCompile(`"\$ref":"#/components/schemas/([^"]+)"`).FindAllSubmatch(data, -1) {
		if !bytes.Contains(data, []byte(`"`+string(match[1])+`":{`)) {
			t.Errorf("schema %s is referred to and absent", match[1])
		}
	}
}

func TestEveryErrorIsAProblemWithItsRemedy(t *testing.T) {
	server, _ := newBlank(t)
	for _, test := range []struct {
		method, path, body string
		status             int
		remedy             string
	}{
		{"GET", "/v1/stacks/nope", "", 404, "gitswarm init"},
		{"GET", "/v1/status?colour=red", "", 422, "openapi.json"},
		{"POST", "/v1/approve", `{}`, 422, "openapi.json"},
		{"POST", "/v1/approve", `{"plan":"x","more":1}`, 422, "openapi.json"},
		{"POST", "/v1/exec", `{}`, 426, "Upgrade"},
		{"POST", "/v1/stacks/nope/scale", `{"replicas":{"web":-1}}`, 422, "from 0 to 10000"},
		{"GET", "/v1/tasks?target=a//b", "", 422, "STACK/SERVICE"},
	} {
		answer := ask(server, test.method, test.path, "application/json", strings.NewReader(test.body))
		var failed Failure
		err := json.NewDecoder(answer.Body).Decode(&failed)
		if err != nil || answer.StatusCode != test.status || failed.Status != test.status {
			t.Errorf("%s %s: status %d, %+v, %v; want %d", test.method, test.path, answer.StatusCode, failed, err, test.status)
		}
		if kind := answer.Header.Get("Content-Type"); kind != "application/problem+json" {
			t.Errorf("%s %s answers with %s", test.method, test.path, kind)
		}
		if !strings.Contains(failed.Remedy, test.remedy) || failed.Detail == "" || failed.Title == "" {
			t.Errorf("%s %s: %+v; want a remedy with %q", test.method, test.path, failed, test.remedy)
		}
	}
}

func TestRefusesBodiesThatAreTooLarge(t *testing.T) {
	server, _ := newBlank(t)
	long := `{"plan":"` + strings.Repeat("x", maxBodyBytes) + `"}`
	for path, kind := range map[string]string{"/v1/approve": "application/json", "/v1/stacks/a/restart": "application/json"} {
		if answer := ask(server, "POST", path, kind, strings.NewReader(long)); answer.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("POST %s with %d bytes: %s", path, len(long), answer.Status)
		}
	}
	endless := io.LimitReader(zeros{}, maxTreeBytes+1)
	if answer := ask(server, "POST", "/v1/plan/tree", "application/x-tar", endless); answer.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a tree of %d bytes: %s", maxTreeBytes+1, answer.Status)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// archive writes entries "name", "name/", "name -> target" or "name => hard".
func archive(t *testing.T, entries ...string) *bytes.Buffer {
	var data bytes.Buffer
	writer := tar.NewWriter(&data)
	for _, entry := range entries {
		header := &tar.Header{Name: entry, Typeflag: tar.TypeReg, Mode: 0o644, Size: 2}
		if name, target, ok := strings.Cut(entry, " -> "); ok {
			header = &tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}
		} else if name, target, ok := strings.Cut(entry, " => "); ok {
			header = &tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink}
		}
		if err := writer.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeReg {
			if _, err := writer.Write([]byte("hi")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return &data
}

func TestPlansAnUploadedFolderAndLeavesNothing(t *testing.T) {
	server, cluster := newBlank(t)
	answer := ask(server, "POST", "/v1/plan/tree", "application/x-tar", archive(t, "shop/compose.yaml", "shop/link -> compose.yaml"))
	if answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status)
	}
	if want := []string{".", "shop", "shop/compose.yaml", "shop/link"}; !slices.Equal(cluster.planned, want) {
		t.Errorf("planned %q, want %q", cluster.planned, want)
	}
	if left, err := os.ReadDir(server.Scratch); err != nil || len(left) > 0 {
		t.Errorf("scratch folder holds %v, %v", left, err)
	}
}

func TestNoArchiveWritesOutsideItsFolder(t *testing.T) {
	for _, entries := range [][]string{
		{"../escaped"},
		{"/tmp/escaped"},
		{"a/../../escaped"},
		{"out -> ..", "out/escaped"},
		{"out -> /", "out/escaped"},
		{"a => /etc/passwd"},
	} {
		parent := t.TempDir()
		dir := filepath.Join(parent, "tree")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		err := unpack(dir, archive(t, entries...))
		if _, escaped := os.Lstat(filepath.Join(parent, "escaped")); escaped == nil {
			t.Errorf("%q was written outside", entries)
		}
		var refused *Failure
		if !errors.As(err, &refused) || refused.Remedy == "" {
			t.Errorf("%q: %v, want a refusal with a remedy", entries, err)
		}
	}
}

func TestRefusesArchivesOfTooManyFiles(t *testing.T) {
	entries := make([]string, maxTreeFiles+1)
	for i := range entries {
		entries[i] = "same"
	}
	var data bytes.Buffer
	writer := tar.NewWriter(&data)
	for range entries {
		if err := writer.WriteHeader(&tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unpack(t.TempDir(), &data); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("unpack: %v", err)
	}
}

func TestSocketIsForItsOwnerAndGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "api.sock")
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket has mode %v, %v; want 0660", info.Mode(), err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another gitswarm daemon listens") {
		t.Errorf("a second daemon got %v", err)
	}

	// A daemon that was killed leaves its socket: the next one replaces it.
	if err := listener.(*namedListener).UnixListener.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket is left: %v", err)
	}

	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "is there and no socket") {
		t.Errorf("a file in the way: %v", err)
	}
}

func TestKnowsWhoAsks(t *testing.T) {
	listener, err := Listen(filepath.Join(t.TempDir(), "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if name := peerOf(withPeer(t.Context(), conn)); name == "" {
		t.Error("the peer has no name")
	}
	if name := peerOf(t.Context()); name != "" {
		t.Errorf("nobody is %q", name)
	}
}
