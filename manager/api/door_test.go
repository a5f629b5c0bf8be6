package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestADoorOutlivesWhatIsBehindIt(t *testing.T) {
	path := t.TempDir() + "/api.sock"
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	unjoined := New(Config{Machine: place{InNone}})
	door := NewDoor(unjoined)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- door.Serve(ctx, listener) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	ask := func(path string) (int, string) {
		answer, err := client.Get("http://door" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text)
	}

	if status, text := ask("/v1/nodes"); status != http.StatusConflict || !strings.Contains(text, CodeNoCluster) {
		t.Errorf("in no cluster: %d %s", status, text)
	}
	for _, path := range []string{"/v1/version", "/v1/status", "/v1/machine", "/openapi.json", "/v1/authority"} {
		if status, text := ask(path); status != http.StatusOK {
			t.Errorf("in no cluster GET %s: %d %s", path, status, text)
		}
	}
	manager, _ := newSmall(t, nil)
	door.Open(manager)
	if status, text := ask("/v1/nodes"); status != http.StatusOK {
		t.Errorf("as a manager: %d %s", status, text)
	}
	door.Open(New(Config{Machine: place{IsLocked}}))
	if status, text := ask("/v1/stacks"); status != http.StatusConflict || !strings.Contains(text, "gitswarm unlock") {
		t.Errorf("locked: %d %s", status, text)
	}
}

// place is a machine that stands where it stands.
type place struct{ membership Membership }

func (p place) Standing() Standing                                            { return Standing{Membership: p.membership} }
func (p place) Begin(context.Context, Beginning, string) (b Begun, err error) { return b, nil }
func (p place) Join(context.Context, Joining, string) error                   { return nil }
func (p place) Leave(context.Context, bool, string) error                     { return nil }
func (p place) Unlock(context.Context, string, string) error                  { return nil }
func (p place) Restore(context.Context, Restoring, string) (b Begun, err error) {
	return b, nil
}
