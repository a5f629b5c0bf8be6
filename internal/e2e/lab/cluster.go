package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Addresses of a cluster's own network; nothing of it touches the machine's.
const (
	subnet       = "10.88.0."
	switchName   = "switch"
	switchHost   = subnet + "254" // the registry and the git server are there
	registryPort = "5000"
	gitPort      = "3000"
)

// Cluster is a number of hosts on a network of their own, each in a box, with
// a registry and a git server that all of them reach. It starts no daemon.
type Cluster struct {
	Hosts    []*Host
	Registry string // host:port, TLS by an authority that the hosts trust
	Bin      string // the gitswarm binary

	lab      *Lab
	dir      string
	wires    *box // the bridge's
	registry *Program
	pusher   http.RoundTripper
	git      *http.Server
	ca       string // file with the registry's authority
}

// NewCluster opens n hosts. Close it before the lab that it came from.
func (l *Lab) NewCluster(n int) (*Cluster, error) {
	dir, err := os.MkdirTemp(l.Dir, "gitswarm-lab-")
	if err != nil {
		return nil, fmt.Errorf("set up hosts: %w", err)
	}
	c := &Cluster{lab: l, dir: dir, Bin: l.Bin, Registry: net.JoinHostPort(switchHost, registryPort)}
	l.places.add(c.place())
	if err := c.open(n); err != nil {
		return nil, errors.Join(fmt.Errorf("set up hosts: %w", err), c.Close())
	}
	return c, nil
}

// place is the cluster for a program begun anew that only clears away.
func (c *Cluster) place() string { return c.lab.Bin + "|" + c.dir + "|" }

func (c *Cluster) open(n int) (err error) {
	if c.wires, err = newBox(c.dir, switchName); err != nil {
		return err
	}
	if err := c.layBridge(); err != nil {
		return err
	}
	for i := range n {
		h := &Host{Name: "n" + strconv.Itoa(i+1), Address: subnet + strconv.Itoa(i+1), cluster: c}
		h.Dir = filepath.Join(c.dir, h.Name)
		c.Hosts = append(c.Hosts, h)
		if err := h.Boot(); err != nil {
			return err
		}
	}
	if err := c.startRegistry(); err != nil {
		return err
	}
	return c.serveGit()
}

func (c *Cluster) layBridge() error {
	return errors.Join(
		c.wires.do("ip", "link", "add", "br0", "type", "bridge"),
		c.wires.do("ip", "addr", "add", switchHost+"/24", "dev", "br0"),
		c.wires.do("ip", "link", "set", "br0", "up"),
	)
}

// startRegistry runs Debian's registry on the bridge's address.
func (c *Cluster) startRegistry() (err error) {
	if c.ca, err = writeCertificate(c.dir, switchHost); err != nil {
		return fmt.Errorf("make the registry's certificate: %w", err)
	}
	if c.pusher, err = c.trusting(); err != nil {
		return err
	}
	config := filepath.Join(c.dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q, tls: {certificate: %q, key: %q}}\n",
		filepath.Join(c.dir, "registry"), c.Registry, c.ca, c.ca)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	if c.registry, err = c.wires.start(nil, nil, "docker-registry", "serve", config); err != nil {
		return fmt.Errorf("start the registry (Debian package docker-registry): %w", err)
	}
	return Poll(context.Background(), 10*time.Second, "the hosts' registry answers", func() bool {
		conn, err := c.wires.dial(context.Background(), "tcp", c.Registry)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// serveGit serves the repositories below the cluster's folder, to be read.
func (c *Cluster) serveGit() error {
	listener, err := c.wires.listen(net.JoinHostPort(switchHost, gitPort))
	if err != nil {
		return fmt.Errorf("start the git server: %w", err)
	}
	c.git = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: &cgi.Handler{
		Path: "/usr/bin/git", Args: []string{"http-backend"}, InheritEnv: []string{"PATH"},
		Env: []string{"GIT_PROJECT_ROOT=" + c.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null"},
	}}
	go c.git.Serve(listener) //nolint:errcheck // it ends when Close ends it
	return nil
}

// NewRepo makes a bare repository and a clone to push from, and returns the
// URL by which hosts read it.
func (c *Cluster) NewRepo(name string) (r *Repo, url string, err error) {
	r, err = newRepo(c.dir, name)
	return r, "http://" + net.JoinHostPort(switchHost, gitPort) + "/" + name + ".git", err
}

// PushApp is Lab.PushApp, to the hosts' registry.
func (c *Cluster) PushApp(tag string, env ...string) error {
	return push(c.lab.App, c.Registry, c.pusher, "app:"+tag, webServer(tag, env))
}

// Containers maps each host to the first processes of its containers that run
// the examples' web server, by what the kernel says.
func (c *Cluster) Containers() (map[*Host][]Process, error) {
	found := make(map[*Host][]Process)
	for _, h := range c.Hosts {
		its, err := h.Containers()
		if err != nil {
			return nil, err
		}
		found[h] = its
	}
	return found, nil
}

// Close ends all that runs on the hosts and removes every trace.
func (c *Cluster) Close() error {
	if c.git != nil {
		_ = c.git.Close() // reports the listener's end, which is meant
	}
	for _, h := range c.Hosts {
		h.close()
	}
	if c.registry != nil {
		c.registry.Kill()
	}
	if c.wires != nil {
		c.wires.close()
	}
	err := wipeCluster(c.dir)
	c.lab.places.remove(c.place())
	return err
}

// wipeCluster removes what the hosts below dir left when they ended: files
// and control groups.
func wipeCluster(dir string) error {
	if err := closeMarked(dir); err != nil {
		return err
	}
	hosts, err := filepath.Glob(filepath.Join(dir, "n[0-9]*", "data"))
	if err != nil {
		return err
	}
	errs := []error{}
	for _, data := range hosts {
		errs = append(errs, removeGroups(data))
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}
