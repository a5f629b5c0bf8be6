package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/gitswarm/gitswarm/internal/durable"
)

// managerPort is where managers are reached unless told otherwise.
const managerPort = "2377"

// place is where a node listens and where others reach it. It is kept in the
// data folder: a daemon that starts again is where it was.
type place struct {
	Listen    string   `json:"listen"`              // host:port of the managers' port
	Advertise string   `json:"advertise,omitempty"` // host:port that other nodes dial; empty means Listen's own
	DataPath  string   `json:"data_path,omitempty"` // address that containers' traffic is sent to; empty means Advertise's
	Managers  []string `json:"managers,omitempty"`  // host:port of managers known when it joined
	Flags     *place   `json:"flags,omitempty"`     // what the daemon's flags said at that time
}

// readPlace reads a kept place. Without one, found is false.
func readPlace(path string) (p place, found bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil {
		return p, false, fmt.Errorf("read where this node is: %s: %w", path, err)
	}
	return p, true, nil
}

func (p place) save(path string) error {
	data, err := json.MarshalIndent(p, "", "  ")
	if err == nil {
		err = durable.WriteFile(path, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep where this node is: %w", err)
	}
	return nil
}

// moved is the place of a daemon that was started again: what its flags said
// before is history, what they say anew goes.
func (p place) moved(flags place) (now place, changed bool, err error) {
	before := place{}
	if p.Flags != nil {
		before = *p.Flags
	}
	now = p
	now.Flags = &flags
	for _, field := range []struct {
		said, before string
		now          *string
	}{
		{flags.Listen, before.Listen, &now.Listen},
		{flags.Advertise, before.Advertise, &now.Advertise},
		{flags.DataPath, before.DataPath, &now.DataPath},
	} {
		if field.said != "" && field.said != field.before {
			*field.now, changed = field.said, true
		}
	}
	if !changed || p.Flags == nil {
		return p, false, nil
	}
	if now.Listen != p.Listen && now.Advertise == p.Advertise {
		now.Advertise, _, _ = net.SplitHostPort(p.Advertise) // at the new port
	}
	now, err = now.settle("")
	return now, true, err
}

// settle completes what flags and requests left open. Other nodes are told the
// address that packets to one of them come from, or to the world where none is
// known.
func (p place) settle(toward string) (place, error) {
	var err error
	if p.Listen, err = withPort(p.Listen, "0.0.0.0", managerPort); err != nil {
		return p, fmt.Errorf("read listen address: %w", err)
	}
	if p.Listen, err = free(p.Listen); err != nil {
		return p, err
	}
	host, port, _ := net.SplitHostPort(p.Listen) // withPort made it
	if p.Advertise == "" {
		if unspecified(host) {
			if host, err = routedAddress(toward); err != nil {
				return p, err
			}
		}
		p.Advertise = net.JoinHostPort(host, port)
	}
	if p.Advertise, err = withPort(p.Advertise, "", port); err != nil {
		return p, fmt.Errorf("read advertise address: %w", err)
	}
	if host, _, _ = net.SplitHostPort(p.Advertise); unspecified(host) {
		return p, fmt.Errorf("read advertise address: nobody can dial %s (give an address of this machine)", host)
	}
	if p.DataPath != "" {
		if _, err := netip.ParseAddr(p.DataPath); err != nil {
			return p, fmt.Errorf("read data path: %w (give an address of this machine)", err)
		}
	}
	return p, nil
}

// free refuses an address that this machine can't listen on, before anything
// depends on it. Port 0 becomes a number that is kept from then on, so that
// other nodes find this one again.
func free(listen string) (string, error) {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return "", fmt.Errorf("%w (give --listen another address, or stop what listens there)", err)
	}
	defer listener.Close()
	if _, port, _ := net.SplitHostPort(listen); port == "0" {
		return listener.Addr().String(), nil
	}
	return listen, nil
}

// dataPath is the address that containers' traffic is sent to.
func (p place) dataPath() string {
	if p.DataPath != "" {
		return p.DataPath
	}
	host, _, _ := net.SplitHostPort(p.Advertise)
	return host
}

// withPort completes "host", ":port" or "" to host:port.
func withPort(text, host, usual string) (string, error) {
	if text == "" {
		return net.JoinHostPort(host, usual), nil
	}
	h, port, err := net.SplitHostPort(text)
	if err != nil {
		h, port = strings.Trim(text, "[]"), usual
	}
	if h == "" {
		h = host
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("port %q of %q is none between 0 and 65535", port, text)
	}
	if _, err := netip.ParseAddr(h); err != nil {
		return "", fmt.Errorf("%q: %w (give an IP address of this machine)", text, err)
	}
	return net.JoinHostPort(h, port), nil
}

// managerAddress completes "host" to host:port. The host may be a name.
func managerAddress(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.Trim(text, "[]"), managerPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" || strings.ContainsAny(host, " /") {
		return "", fmt.Errorf("%q is no HOST or HOST:PORT of a manager, as in 10.0.0.1:%s", text, managerPort)
	}
	return net.JoinHostPort(host, port), nil
}

func unspecified(host string) bool {
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsUnspecified()
}

// routedAddress is the address that this machine's packets to another machine,
// or the world, would come from; a machine without a default route has its only
// address, and one without any is alone and has its loopback address.
func routedAddress(toward string) (string, error) {
	if conn, err := net.Dial("udp4", cmp.Or(toward, "198.51.100.1:9")); err == nil { // sends nothing; the address is RFC 5737's
		defer conn.Close()
		return conn.LocalAddr().(*net.UDPAddr).IP.String(), nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("find this machine's address: %w", err)
	}
	var found []string
	for _, address := range all {
		prefix, err := netip.ParsePrefix(address.String())
		if err == nil && prefix.Addr().Is4() && prefix.Addr().IsGlobalUnicast() {
			found = append(found, prefix.Addr().String())
		}
	}
	switch len(found) {
	case 0:
		return "127.0.0.1", nil
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("this machine has several addresses (%s) and no default route: say by --advertise which one other nodes reach", strings.Join(found, ", "))
}
