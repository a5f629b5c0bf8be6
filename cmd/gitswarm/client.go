package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/gitswarm/gitswarm/manager/api"
)

// client asks one daemon.
type client struct {
	app   *app
	host  string // for people
	base  *url.URL
	token string // of a user; empty on a socket
	http  *http.Client
	stale bool // it was said that answers are
}

// Limits on what is read from a daemon.
const (
	maxAnswer   = 256 << 20
	maxLine     = 4 << 20
	dialTimeout = 5 * time.Second
)

// get reads one JSON value.
func (c *client) get(ctx context.Context, path string, query url.Values, out any) error {
	return c.call(ctx, http.MethodGet, path, query, nil, "", out)
}

// post sends one JSON value and reads another.
func (c *client) post(ctx context.Context, path string, in, out any) error {
	data, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	return c.call(ctx, http.MethodPost, path, nil, bytes.NewReader(data), "application/json", out)
}

func (c *client) call(ctx context.Context, method, path string, query url.Values, in io.Reader, kind string, out any) error {
	answer, err := c.send(ctx, method, path, query, in, http.Header{"Content-Type": {kind}})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("read answer of daemon: %w", err)
	}
	return nil
}

// send returns an answer that is no error; the caller closes its body.
func (c *client) send(ctx context.Context, method, path string, query url.Values, in io.Reader, header http.Header) (*http.Response, error) {
	address := url.URL{Scheme: c.base.Scheme, Host: c.base.Host, Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, method, address.String(), in)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	for name, values := range header {
		if values[0] != "" {
			request.Header[name] = values
		}
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(err)
	}
	c.noteStale(answer)
	if answer.StatusCode < http.StatusBadRequest {
		return answer, nil
	}
	defer answer.Body.Close()
	return nil, refusal(answer)
}

// noteStale says once that no leader stands behind an answer.
func (c *client) noteStale(answer *http.Response) {
	since := answer.Header.Get(api.StaleHeader)
	if since == "" || c.stale {
		return
	}
	c.stale = true
	when := ""
	if at, err := time.Parse(time.RFC3339, since); err == nil {
		when = ", as it was " + ago(time.Now(), at)
	}
	fmt.Fprintf(c.app.stderr, "stale: no manager leads; this is what one of them knows%s → gitswarm status\n", when)
}

func refusal(answer *http.Response) error {
	failed := new(api.Failure)
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxLine))
	if err != nil || json.Unmarshal(data, failed) != nil || failed.Status == 0 {
		return fmt.Errorf("daemon answered %s: %s", answer.Status, firstLine(data))
	}
	return failed
}

func firstLine(data []byte) string {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return string(line[:min(len(line), 200)])
}

// errUnreachable is wrapped by what a daemon that cannot be asked gives.
var errUnreachable = errors.New("daemon is not reachable")

// unreachable says why a daemon cannot be asked, and what to do.
func (c *client) unreachable(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	remedy := "gitswarm doctor checks this machine"
	switch {
	case strings.HasPrefix(c.host, "https:"):
		remedy = "gitswarm context ls shows what is used; --ca-pin names the authority to believe, gitswarm cluster inspect shows it on a manager"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		remedy = "no daemon runs there: start it with `systemctl start gitswarm` or `gitswarm daemon`, or set GITSWARM_HOST"
	case errors.Is(err, fs.ErrPermission):
		remedy = "you may not use the socket: sudo usermod -aG gitswarm $USER, then log in again"
	}
	var cause *net.OpError
	if errors.As(err, &cause) {
		err = cause.Err
	}
	return fmt.Errorf("ask %s: %w: %w (%s)", c.host, errUnreachable, err, remedy)
}

// stream calls line for each line of an answer. A stream that the daemon broke
// off ends with the error that it gave, or with errStreamEnded.
func (c *client) stream(ctx context.Context, path string, query url.Values, line func([]byte) error) error {
	return c.streamFrom(ctx, http.MethodGet, path, query, nil, line)
}

// streamFrom is stream of an answer to another method; in is what it sends, or
// nil.
func (c *client) streamFrom(ctx context.Context, method, path string, query url.Values, in any, line func([]byte) error) error {
	var sent io.Reader
	var header http.Header
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		sent, header = bytes.NewReader(data), http.Header{"Content-Type": {"application/json"}}
	}
	answer, err := c.send(ctx, method, path, query, sent, header)
	if err != nil {
		return err
	}
	defer answer.Body.Close()

	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for lines.Scan() {
		var broken api.Broken
		if bytes.HasPrefix(lines.Bytes(), []byte(`{"error":`)) && json.Unmarshal(lines.Bytes(), &broken) == nil && broken.Error != nil {
			return broken.Error
		}
		if err := line(lines.Bytes()); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: %w", errStreamEnded, err)
	}
	return nil
}

// errStreamEnded says that a stream broke off: the daemon may be restarting.
var errStreamEnded = errors.New("the daemon ended the stream")

// upgrade starts an exec and returns the connection that frames travel on.
func (c *client) upgrade(ctx context.Context, request api.ExecRequest) (io.ReadWriteCloser, error) {
	data, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	answer, err := c.send(ctx, http.MethodPost, "/v1/exec", nil, bytes.NewReader(data), http.Header{
		"Content-Type": {"application/json"}, "Connection": {"Upgrade"}, "Upgrade": {api.ExecProtocol},
	})
	if err != nil {
		return nil, err
	}
	conn, ok := answer.Body.(io.ReadWriteCloser)
	if answer.StatusCode != http.StatusSwitchingProtocols || !ok {
		answer.Body.Close()
		return nil, fmt.Errorf("start exec: daemon answered %s", answer.Status)
	}
	return conn, nil
}
