package lab

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
)

// port is the host's end at the switch.
func (h *Host) port() string { return "to-" + h.Name }

// plugIn connects the host to the switch by a pair of links, made where they
// belong.
func (h *Host) plugIn() error {
	wires := h.cluster.wires
	_ = wires.do("ip", "link", "del", h.port()) // of before it lost power; mostly gone already
	link := exec.Command("ip", "link", "add", h.port(), "netns", strconv.Itoa(wires.pid()), "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(h.box.pid()))
	if text, err := link.CombinedOutput(); err != nil {
		return fmt.Errorf("connect %s: %w: %s", h.Name, err, text)
	}
	return errors.Join(
		wires.do("ip", "link", "set", h.port(), "master", "br0", "up"),
		h.box.do("ip", "addr", "add", h.Address+"/24", "dev", "eth0"),
		h.box.do("ip", "link", "set", "eth0", "up"),
		h.box.do("ip", "route", "add", "default", "via", switchHost),
	)
}

// Cut takes the host's cable out.
func (h *Host) Cut() error { return h.cluster.wires.do("ip", "link", "set", h.port(), "down") }

// Heal puts the cable in again, and ends Deafen and Silence.
func (h *Host) Heal() error {
	if err := h.cluster.wires.do("ip", "link", "set", h.port(), "up"); err != nil {
		return err
	}
	return h.box.do("nft", "add table inet lab; delete table inet lab")
}

// Deafen drops what the host is sent by another; what it sends arrives.
func (h *Host) Deafen(to *Host) error {
	return h.filter("ip saddr " + to.Address + " drop")
}

// Silence drops, both ways, the TCP and UDP traffic of a port, whichever side
// listens on it.
func (h *Host) Silence(port int) error {
	text := strconv.Itoa(port)
	return h.filter("meta l4proto { tcp, udp } th dport "+text+" drop", "meta l4proto { tcp, udp } th sport "+text+" drop")
}

// filter adds rules to what comes in and what goes out.
func (h *Host) filter(rules ...string) error {
	script := "add table inet lab\n" +
		"add chain inet lab in { type filter hook input priority -500; }\n" +
		"add chain inet lab out { type filter hook output priority -500; }\n"
	for _, rule := range rules {
		script += "add rule inet lab in " + rule + "\nadd rule inet lab out " + rule + "\n"
	}
	return h.box.do("nft", script)
}
