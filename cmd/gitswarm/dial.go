package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/manager/api"
)

// usersPort is where managers answer users.
const usersPort = "2380"

// client is for the daemon that the flags, the environment or a context name.
func (a *app) client() (*client, error) {
	target, err := a.target()
	if err != nil {
		return nil, err
	}
	pin := os.Getenv("GITSWARM_CA_PIN")
	if a.host != "" && pin != "" && strings.HasPrefix(target.Host, "https://") {
		ctx, cancel := context.WithTimeout(context.Background(), 2*dialTimeout)
		defer cancel()
		if target.CA, err = fetchAuthority(ctx, target.Host, pin); err != nil {
			return nil, err
		}
	}
	return a.clientOf(target)
}

func (a *app) clientOf(target remote) (*client, error) {
	path, ok := strings.CutPrefix(target.Host, "unix://")
	if !ok && strings.HasPrefix(target.Host, "/") {
		path, ok = target.Host, true
	}
	if ok && path != "" {
		return a.socketClient(path), nil
	}
	base, err := usersURL(target.Host)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	if target.CA != "" {
		if config, err = identity.Pinned([]byte(target.CA), "http/1.1"); err != nil {
			return nil, fmt.Errorf("read certificate authority of %s: %w", target.Host, err)
		}
	}
	return &client{app: a, host: base.String(), base: base, token: target.Token, http: &http.Client{Transport: overTLS(config)}}, nil
}

func (a *app) socketClient(path string) *client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dialer := net.Dialer{Timeout: dialTimeout}
			return dialer.DialContext(ctx, "unix", path)
		},
		DisableCompression: true,
	}
	return &client{app: a, host: "unix://" + path, base: &url.URL{Scheme: "http", Host: "gitswarm"}, http: &http.Client{Transport: transport}}
}

func overTLS(config *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: dialTimeout,
		DisableCompression:  true,
	}
}

// usersURL reads "https://m1.example.com[:2380]".
func usersURL(host string) (*url.URL, error) {
	base, err := url.Parse(host)
	if err != nil || base.Scheme != "https" || base.Hostname() == "" || strings.Trim(base.Path, "/") != "" || base.User != nil {
		return nil, fmt.Errorf("host %q is unknown: give unix:///path/to/gitswarm.sock or https://HOST:%s", host, usersPort)
	}
	if base.Port() == "" {
		base.Host = net.JoinHostPort(base.Hostname(), usersPort)
	}
	return &url.URL{Scheme: base.Scheme, Host: base.Host}, nil
}

// fetchAuthority asks a manager for its certificate authority and believes
// what the pin names. No token is sent before.
func fetchAuthority(ctx context.Context, host, pin string) (string, error) {
	base, err := usersURL(host)
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("/v1/authority").String(), nil)
	if err != nil {
		return "", fmt.Errorf("make request: %w", err)
	}
	transport := overTLS(identity.Unverified("http/1.1"))
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return "", (&client{host: base.String()}).unreachable(err)
	}
	defer answer.Body.Close()
	var authority api.Authority
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxLine)).Decode(&authority); err != nil {
		return "", fmt.Errorf("ask %s for its certificate authority: %w", base, err)
	}
	root, err := api.Pinned([]byte(authority.Certificates), pin)
	if err != nil {
		return "", fmt.Errorf("ask %s for its certificate authority: %w: it is another cluster, its authority was rotated, or somebody is in between"+
			" (gitswarm cluster inspect shows the pin on a manager)", base, err)
	}
	return string(root), nil
}

// usersHost is where this client's cluster answers users, as far as it knows.
func (c *client) usersHost() string {
	if c.base.Scheme == "https" {
		return c.base.Host
	}
	return "MANAGER:" + usersPort
}
