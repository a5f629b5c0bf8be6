package api

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// small is a cluster of two sources with a stack each, and users' tokens.
type small struct {
	blank
	tokens []swarm.UserToken
	nodes  []swarm.Node
}

func (s *small) Tokens() []swarm.UserToken { return s.tokens }
func (s *small) Nodes() []swarm.Node       { return s.nodes }
func (s *small) Sources() []swarm.Source {
	return []swarm.Source{{ID: "apps"}, {ID: "infra"}}
}

func (s *small) Stacks() []swarm.StackRecord {
	return []swarm.StackRecord{{Name: "dns", Source: "infra"}, {Name: "shop", Source: "apps"}}
}

func (s *small) Stack(name swarm.StackName) (swarm.StackRecord, bool) {
	for _, record := range s.Stacks() {
		if record.Name == name {
			return record, true
		}
	}
	return swarm.StackRecord{}, false
}

func (s *small) Events(uint64, int) []swarm.Event {
	return []swarm.Event{
		{Index: 1, Kind: "rollout", Stack: "dns", Text: "dns became healthy"},
		{Index: 2, Kind: "rollout", Stack: "shop", Text: "shop became healthy"},
		{Index: 3, Kind: "node", Text: "w1 became ready"},
	}
}

// still never changes.
type still struct{}

func (still) Next() <-chan struct{} { return nil }
func (still) Close()                {}

// user adds a token and returns its text.
func (s *small) user(name string, role swarm.UserRole, source swarm.SourceID, expires time.Time) string {
	text, id, hash := newUserToken()
	s.tokens = append(s.tokens, swarm.UserToken{ID: id, Name: name, Role: role, Source: source, Hash: hash, Expires: expires})
	return text
}

func newSmall(t *testing.T, log *slog.Logger) (*Server, *small) {
	s := &small{}
	return New(Config{
		View: func() View { return s }, Changes: func() Changes { return still{} }, Planner: s, Scratch: t.TempDir(), Log: log,
	}), s
}

// askAs asks as a user with a token does.
func askAs(s *Server, token, method, path string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(method, path, strings.NewReader("{}"))
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	recorder := httptest.NewRecorder()
	s.UsersHandler().ServeHTTP(recorder, request)
	return recorder
}

// The table is reviewed as text: UPDATE=1 rewrites it.
func TestEveryOperationSaysWhoMayDoIt(t *testing.T) {
	server, _ := newSmall(t, nil)
	var lines []string
	known := map[string]bool{"document": true}
	for pattern, operation := range server.operations {
		known[operation] = true
		asks, ok := accessOf(operation)
		if !ok {
			t.Errorf("%s (%s) is open to nobody: add it to accessOf", operation, pattern)
		}
		role := string(asks.role)
		if role == "" {
			role = "everybody"
		}
		line := fmt.Sprintf("%-9s %-17s %s", role, operation, pattern)
		for word, set := range map[string]bool{" [one source]": asks.bound, " [here]": asks.here, " [socket]": asks.socket, " [stale]": asks.stale} {
			if set {
				line += word
			}
		}
		lines = append(lines, sortWords(line))
	}
	slices.Sort(lines)
	got := strings.Join(lines, "\n") + "\n"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile("testdata/access.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/access.txt")
	if err != nil || got != string(want) {
		t.Errorf("who may do what has changed (%v): got\n%s\nwant\n%s", err, got, want)
	}

	source, err := os.ReadFile("access.go")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := bytes.Cut(source, []byte("switch operation {"))
	table, _, _ = bytes.Cut(table, []byte("\n}\n"))
	for _, name := range regexp.MustCompile(`"([a-z-]+)"`).FindAllSubmatch(table, -1) {
		if !known[string(name[1])] {
			t.Errorf("accessOf names %s, which is no operation", name[1])
		}
	}
}

// sortWords orders the words in brackets behind a line.
func sortWords(line string) string {
	parts := strings.Split(line, " [")
	slices.Sort(parts[1:])
	return strings.Join(parts, " [")
}

func TestARoleMayDoWhatItsTableSaysAndNoMore(t *testing.T) {
	server, cluster := newSmall(t, nil)
	tokens := map[swarm.UserRole]string{}
	for _, role := range ranks() {
		tokens[role] = cluster.user("u-"+string(role), role, "", time.Now().Add(time.Hour))
	}
	for _, pattern := range slices.Sorted(maps.Keys(server.operations)) {
		operation := server.operations[pattern]
		asks, _ := accessOf(operation)
		method, path, _ := strings.Cut(pattern, " ")
		path = regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(path, "x")
		for rank, role := range ranks() {
			may := asks.role == "" || !asks.socket && rank >= slices.Index(ranks(), asks.role)
			if err := (caller{Name: "u", Role: role}).may(operation, asks); (err == nil) != may {
				t.Errorf("%s by %s: %v, want allowed: %v", operation, role, err, may)
			}
			if may {
				continue
			}
			answer := askAs(server, tokens[role], method, path)
			if answer.Code != http.StatusForbidden {
				t.Errorf("%s by %s answers %d, want 403", pattern, role, answer.Code)
			}
		}
	}
}

func TestATokenOfOneSourceSeesThatSourceAlone(t *testing.T) {
	server, cluster := newSmall(t, nil)
	token := cluster.user("pipeline", swarm.UserCI, "apps", time.Now().Add(time.Hour))
	for _, test := range []struct {
		method, path string
		status       int
		has, hasNot  string
	}{
		{"GET", "/v1/stacks", 200, "shop", "dns"},
		{"GET", "/v1/status", 200, "shop", "dns"},
		{"GET", "/v1/sources", 200, "apps", "infra"},
		{"GET", "/v1/events", 200, "shop became healthy", "dns"},
		{"GET", "/v1/stacks/shop", 200, "shop", "dns"},
		{"GET", "/v1/stacks/dns", 404, "", ""},
		{"GET", "/v1/stacks/dns/history", 404, "", ""},
		{"GET", "/v1/inspect?target=dns", 404, "", ""},
		{"GET", "/v1/tasks?target=dns", 404, "", ""},
		{"GET", "/v1/services?target=dns", 404, "", ""},
		{"GET", "/v1/stats?target=dns/web", 404, "", ""},
		{"GET", "/v1/logs?target=dns", 404, "", ""},
		{"GET", "/v1/wait?stack=dns", 404, "", ""},
		{"GET", "/v1/sources/infra", 404, "", ""},
		{"POST", "/v1/sources/infra/sync", 404, "", ""},
		{"POST", "/v1/plan?source=infra", 403, "", ""},
		{"GET", "/v1/nodes", 403, "", ""},
		{"GET", "/v1/volumes", 403, "", ""},
	} {
		answer := askAs(server, token, test.method, test.path)
		text := answer.Body.String()
		if answer.Code != test.status || !strings.Contains(text, test.has) || test.hasNot != "" && strings.Contains(text, test.hasNot) {
			t.Errorf("%s %s: %d %s; want %d with %q and without %q", test.method, test.path, answer.Code, text, test.status, test.has, test.hasNot)
		}
	}
}

func TestATokenThatIsNoneIsRefusedAndLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	server, cluster := newSmall(t, slog.New(slog.NewTextHandler(&log, nil)))
	good := cluster.user("ana", swarm.UserViewer, "", time.Now().Add(time.Hour))
	old := cluster.user("bo", swarm.UserAdmin, "", time.Now().Add(-time.Second))
	other := cluster.user("cy", swarm.UserAdmin, "", time.Now().Add(time.Hour))
	swapped := good[:len(userTokenPrefix)+idLength] + other[len(userTokenPrefix)+idLength:]
	stranger, _, _ := newUserToken()

	if answer := askAs(server, good, "GET", "/v1/nodes"); answer.Code != http.StatusOK {
		t.Fatalf("a good token: %d %s", answer.Code, answer.Body)
	}
	for token, cause := range map[string]string{
		"": "no token was sent", old: "has expired", swapped: "is unknown", stranger: "is unknown",
		good[:len(good)-1]: "is no user's token", strings.ToUpper(good): "is no user's token",
	} {
		answer := askAs(server, token, "GET", "/v1/nodes")
		if answer.Code != http.StatusUnauthorized || !strings.Contains(answer.Body.String(), cause) {
			t.Errorf("%q: %d %s, want 401 with %q", token, answer.Code, answer.Body, cause)
		}
	}

	handler := server.UsersHandler()
	log.Reset()
	for range 3 {
		request := httptest.NewRequest(http.MethodGet, "/v1/nodes", nil)
		request.Header.Set("Authorization", "Bearer "+stranger)
		handler.ServeHTTP(httptest.NewRecorder(), request)
	}
	if n := strings.Count(log.String(), "user's token was refused"); n != 1 {
		t.Errorf("three tries are logged %d times:\n%s", n, log.String())
	}
	if strings.Contains(log.String(), stranger[len(userTokenPrefix)+idLength:]) {
		t.Error("the log holds a secret")
	}
}

func TestEachTryPausesLongerUntilOneStops(t *testing.T) {
	tries := newTries(slog.New(slog.DiscardHandler))
	now := time.Unix(1e9, 0)
	last := time.Duration(0)
	for range 6 {
		pause, _ := tries.count("10.0.0.1", "unknown", now)
		if pause <= last && last < mostPause || pause > mostPause {
			t.Errorf("a pause of %v follows one of %v", pause, last)
		}
		last = pause
	}
	if last != mostPause {
		t.Errorf("the sixth try pauses %v, want %v", last, mostPause)
	}
	if pause, news := tries.count("10.0.0.2", "unknown", now); pause != firstPause || !news {
		t.Errorf("another address pauses %v, news %v", pause, news)
	}
	if pause, news := tries.count("10.0.0.1", "unknown", now.Add(2*logEvery)); pause != firstPause || !news {
		t.Errorf("after two minutes a try pauses %v, news %v", pause, news)
	}
	for i := range 3 * maxSources {
		tries.count(fmt.Sprint("10.1.", i), "unknown", now)
	}
	if len(tries.sources) > maxSources {
		t.Errorf("%d addresses are remembered, want %d at most", len(tries.sources), maxSources)
	}
}

func TestWithoutATokenOnlyTheAuthorityIsShown(t *testing.T) {
	server, _ := newSmall(t, nil)
	for path, status := range map[string]int{"/v1/authority": 200, "/openapi.json": 200, "/v1/version": 401, "/v1/status": 401, "/nowhere": 401} {
		if answer := askAs(server, "", "GET", path); answer.Code != status {
			t.Errorf("GET %s without a token: %d, want %d", path, answer.Code, status)
		}
	}
}

// One address that opens all the connections it can keeps nobody else out.
func TestACrowdFromOneAddressLeavesRoomForOthers(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := newCrowd(inner)
	accepted := make(chan net.Conn, 2*maxOfAddress)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- conn
		}
	}()
	from := func(ip string) net.Conn {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	for range maxOfAddress + 5 {
		from("127.0.0.2")
	}
	from("127.0.0.3")
	counts := map[string]int{}
	var first net.Conn
	for range maxOfAddress + 1 {
		conn := <-accepted
		if first == nil {
			first = conn
		}
		counts[hostOf(conn.RemoteAddr().String())]++
	}
	if counts["127.0.0.2"] != maxOfAddress || counts["127.0.0.3"] != 1 {
		t.Errorf("accepted %v, want %d of the one and 1 of the other", counts, maxOfAddress)
	}

	// A seat that is left is free again, however often it is left.
	first.Close()
	first.Close()
	from("127.0.0.2")
	if conn := <-accepted; hostOf(conn.RemoteAddr().String()) != "127.0.0.2" {
		t.Errorf("accepted %v", conn.RemoteAddr())
	}
	listener.Close()
	for conn := range accepted {
		conn.Close()
	}
}

func FuzzUserTokens(f *testing.F) {
	good, _, _ := newUserToken()
	f.Add(good)
	f.Add("GSUSR-1-aaaaaaaa-")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		id, _, err := parseUserToken(text)
		if err == nil && (len(text) != len(good) || !strings.Contains(text, id)) {
			t.Errorf("%q is taken for a token of %q", text, id)
		}
		if err != nil && text != "" && strings.Contains(err.Error(), text) && len(text) > 8 {
			t.Errorf("the error quotes what was presented: %v", err)
		}
	})
}
