package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/swarm"
)

func TestAnyManagerHasTheLeaderDoWhatItIsAsked(t *testing.T) {
	c := newCouncil(t)
	c.lead("m2")
	for _, id := range []swarm.NodeID{"m1", "m2", "m3"} {
		status, text, _ := post(t, c.managers[id].at(t)+"/v1/nodes/delta/availability", `{"availability":"drained"}`)
		if status != http.StatusOK || !strings.Contains(text, "delta is drained") {
			t.Errorf("asked at %s: %d %s", id, status, text)
		}
	}
	if done := c.managers["m2"].done(); strings.Count(done, "m2: drained w1") != 3 {
		t.Errorf("the leader did %q", done)
	}
	if done := c.managers["m1"].done() + c.managers["m3"].done(); done != "" {
		t.Errorf("followers did %q", done)
	}

	var nodes []Node
	get(t, c.managers["m1"].at(t)+"/v1/nodes", &nodes)
	for _, node := range nodes {
		if node.Leader != (node.ID == "m2") {
			t.Errorf("%s leads: %v", node.ID, node.Leader)
		}
	}
}

func TestTheLeaderLearnsWhoAskedAtAnotherManager(t *testing.T) {
	c := newCouncil(t)
	c.lead("m2")
	follower, leader := c.managers["m1"], c.managers["m2"]
	token := follower.user("ana", swarm.UserOperator, "", time.Now().Add(time.Hour))
	leader.tokens = append(leader.tokens, follower.tokens...)

	drain := func() int {
		request := httptest.NewRequest(http.MethodPost, "/v1/nodes/w1/availability", strings.NewReader(`{"availability":"drained"}`))
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Authorization", "Bearer "+token)
		// A user who claims to be passed on by a manager is not believed.
		request.Header.Set(callerHeader, caller{Name: "root", Role: swarm.UserAdmin}.header())
		recorder := httptest.NewRecorder()
		follower.server.UsersHandler().ServeHTTP(recorder, request)
		return recorder.Code
	}
	if status := drain(); status != http.StatusOK || leader.done() != "m2: drained w1 by ana" {
		t.Errorf("status %d; the leader did %q", status, leader.done())
	}

	// The leader knows already that the token is gone.
	leader.tokens = nil
	if status := drain(); status != http.StatusUnauthorized || leader.done() != "m2: drained w1 by ana" {
		t.Errorf("with a removed token: status %d; the leader did %q", status, leader.done())
	}
}

func TestStreamsAndUpgradesPassThroughAFollower(t *testing.T) {
	c := newCouncil(t)
	c.lead("m3")
	front := c.managers["m1"].at(t)

	answer, err := http.Get(front + "/v1/logs?target=shop&follow=true")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(answer.Body)
	for _, text := range []string{"one", "two"} { // each arrives before the next is written
		c.managers["m3"].emitted <- swarm.LogLine{Task: "shop/web.1.t1", Text: []byte(text)}
		if !lines.Scan() || !strings.Contains(lines.Text(), text) {
			t.Fatalf("got %q, %v; want %s", lines.Text(), lines.Err(), text)
		}
	}
	answer.Body.Close()
	for until := time.Now().Add(10 * time.Second); !strings.Contains(c.managers["m3"].done(), "reader left"); {
		if time.Now().After(until) {
			t.Fatal("the leader goes on with a stream whose reader left")
		}
		time.Sleep(5 * time.Millisecond)
	}

	request, err := http.NewRequest(http.MethodPost, front+"/v1/exec", strings.NewReader(`{"target":"shop/web","args":["cat"],"stdin":true}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{"Content-Type": {"application/json"}, "Connection": {"Upgrade"}, "Upgrade": {ExecProtocol}}
	upgraded, err := http.DefaultTransport.RoundTrip(request)
	if err != nil || upgraded.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("exec: %v, %v", upgraded, err)
	}
	conn := upgraded.Body.(io.ReadWriteCloser)
	defer conn.Close()
	frames := NewFrames(conn, conn)
	if err := errors.Join(frames.Write(swarm.ExecFrame{Stdin: []byte("hello")})); err != nil {
		t.Fatal(err)
	}
	if frame, err := frames.Read(); err != nil || string(frame.Stdout) != "hello" {
		t.Fatalf("echo: %q, %v", frame.Stdout, err)
	}
	if err := frames.Write(swarm.ExecFrame{EOF: true}); err != nil {
		t.Fatal(err)
	}
	if frame, err := frames.Read(); err != nil || frame.Exit == nil || *frame.Exit != 7 {
		t.Fatalf("exit: %+v, %v", frame, err)
	}

	status, backup, _ := post(t, front+"/v1/cluster/backup", `{"key":"correct horse"}`)
	if status != http.StatusOK || len(backup) != 100_000*len("correct horse") {
		t.Errorf("backup: %d with %d bytes", status, len(backup))
	}
}

func TestARequestWaitsForTheNextLeader(t *testing.T) {
	c := newCouncil(t)
	c.lead("m2")
	c.managers["m2"].stop() // killed: m1 does not know it yet
	answered := make(chan string, 1)
	front := c.managers["m1"].at(t)
	go func() {
		status, text, _ := post(t, front+"/v1/nodes/w1/availability", `{"availability":"paused"}`)
		answered <- fmt.Sprint(status, " ", text)
	}()
	select {
	case text := <-answered:
		t.Fatalf("answered without a leader: %s", text)
	case <-time.After(4 * lookAgain):
	}
	c.lead("") // an election
	c.lead("m3")
	if text := <-answered; !strings.HasPrefix(text, "200") {
		t.Errorf("after the election: %s", text)
	}
	if done := c.managers["m3"].done(); done != "m3: paused w1 by " {
		t.Errorf("the new leader did %q", done)
	}
}

// Two managers that take each other for the leader would pass a request back
// and forth for ever.
func TestARequestIsPassedOnOnce(t *testing.T) {
	c := newCouncil(t)
	c.lead("m2")
	c.managers["m2"].unsure = true // it was deposed and does not know by whom
	front := c.managers["m1"].at(t)
	answered := make(chan string, 1)
	go func() {
		status, text, _ := post(t, front+"/v1/nodes/w1/availability", `{"availability":"paused"}`)
		answered <- fmt.Sprint(status, " ", text)
	}()
	<-c.managers["m2"].asked
	c.lead("m1")
	if text := <-answered; !strings.HasPrefix(text, "200") {
		t.Errorf("answered %s", text)
	}
	if done := c.managers["m1"].done() + c.managers["m2"].done(); done != "m1: paused w1 by " {
		t.Errorf("done: %q, want once, by the manager that leads", done)
	}
}

func TestWithoutAQuorumStatusSaysWhoIsMissingAndWhatToDo(t *testing.T) {
	c := newCouncil(t)
	c.silent(time.Minute)
	c.managers["m2"].stop()
	c.managers["m3"].stop()
	front := c.managers["m1"].at(t)

	var page Status
	status, header := get(t, front+"/v1/status", &page)
	lost := page.Leaderless
	if status != http.StatusOK || header.Get(StaleHeader) == "" || lost == nil {
		t.Fatalf("status %d, header %v, page %+v", status, header, page)
	}
	if lost.Quorum || lost.Managers != (Count{1, 3}) || len(lost.Unreachable) != 2 {
		t.Errorf("what is lost: %+v", lost)
	}
	for _, want := range []string{"quorum lost", "2 of 3 managers do not answer", "beta (127.0.0.1:", "gamma (127.0.0.1:"} {
		if !strings.Contains(lost.Text, want) {
			t.Errorf("%q does not say %q", lost.Text, want)
		}
	}
	if !strings.Contains(lost.Remedy, "docs/recovery.md") {
		t.Errorf("remedy %q", lost.Remedy)
	}

	var nodes []Node
	if status, header := get(t, front+"/v1/nodes", &nodes); status != http.StatusOK || header.Get(StaleHeader) == "" || len(nodes) != 4 {
		t.Errorf("nodes: %d, %v, %d of them", status, header, len(nodes))
	}
	var failed Failure
	if status, _ := get(t, front+"/v1/logs?target=shop", &failed); status != http.StatusServiceUnavailable || failed.Code != CodeNoQuorum {
		t.Errorf("logs: %d %+v", status, failed)
	}
	recorder := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodPost, "/v1/nodes/w1/availability", strings.NewReader(`{"availability":"paused"}`))
	waiting, cancel := context.WithTimeout(t.Context(), 20*lookAgain)
	defer cancel()
	c.managers["m1"].server.Handler().ServeHTTP(recorder, request.WithContext(waiting))
	if done := c.managers["m1"].done(); done != "" {
		t.Errorf("without a quorum it did %q", done)
	}
}

func TestAnElectionIsNoLossOfQuorum(t *testing.T) {
	c := newCouncil(t)
	c.silent(time.Minute)
	c.managers["m3"].stop()
	var page Status
	get(t, c.managers["m1"].at(t)+"/v1/status", &page)
	if page.Leaderless == nil || !page.Leaderless.Quorum || !strings.Contains(page.Leaderless.Text, "2 of 3") {
		t.Errorf("page: %+v", page.Leaderless)
	}
}

func TestOnlyManagersSpeakForOthers(t *testing.T) {
	c := newCouncil(t)
	c.lead("m1")
	address := c.members[0].Address
	worker := c.papers("w1", swarm.RoleWorker)
	for _, protocol := range []string{identity.ProtocolAPI, identity.ProtocolWire} {
		conn, err := worker.Dial(t.Context(), address, protocol)
		if err != nil {
			continue // refused by the port
		}
		fmt.Fprintf(conn, "POST /v1/nodes/w1/availability HTTP/1.1\r\nHost: m1\r\n%s: %s\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n%s",
			callerHeader, caller{Name: "root", Role: swarm.UserAdmin}.header(), `{"availability":"paused"}`)
		if answer, err := io.ReadAll(conn); len(answer) > 0 {
			t.Errorf("a worker by %s got %q, %v", protocol, answer, err)
		}
		conn.Close()
	}
	if done := c.managers["m1"].done(); done != "" {
		t.Errorf("for a worker it did %q", done)
	}
}
