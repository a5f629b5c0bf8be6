package compose

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/gitswarm/gitswarm/swarm"
)

// ports sorts published ports: those in mode host belong to the container,
// and all others to the service.
func (c *conversion) ports(task *swarm.TaskSpec, from types.ServiceConfig, endpoint swarm.EndpointMode) (ingress []swarm.Port) {
	if len(from.Ports) > 0 && (task.HostNet || from.NetworkMode == "none") {
		c.warnKey(from.Name, "ports", "network_mode: %s publishes nothing: the container's ports are the node's own, or nobody's", from.NetworkMode)
		return nil
	}
	for _, published := range from.Ports {
		port, ok := c.port(from.Name, published)
		switch {
		case !ok:
		case port.Host:
			task.HostPorts = append(task.HostPorts, port)
		case endpoint == swarm.DNSRR:
			c.refuseKey(from.Name, "ports", "port %d in mode ingress needs endpoint_mode: vip; write mode: host, or remove dnsrr", port.Target)
		default:
			ingress = append(ingress, port)
		}
	}
	slices.SortFunc(task.HostPorts, comparePorts)
	slices.SortFunc(ingress, comparePorts)
	task.HostPorts = slices.Compact(task.HostPorts)
	return slices.Compact(ingress)
}

func comparePorts(a, b swarm.Port) int {
	return cmp.Or(cmp.Compare(a.Published, b.Published), cmp.Compare(a.Target, b.Target),
		cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Address, b.Address))
}

func (c *conversion) port(service string, from types.ServicePortConfig) (swarm.Port, bool) {
	port := swarm.Port{
		Target: uint16(from.Target), Protocol: swarm.Protocol(cmp.Or(from.Protocol, string(swarm.TCP))),
		Host: from.Mode == "host", Address: strings.Trim(from.HostIP, "[]"),
	}
	if from.Target == 0 || from.Target > 65535 {
		c.refuseKey(service, "ports", "target %d is not a port", from.Target)
		return port, false
	}
	if from.Published != "" {
		if strings.Contains(from.Published, "-") {
			c.refuseKey(service, "ports", "the range %s is published for one port; name one of it", from.Published)
			return port, false
		}
		published, err := strconv.ParseUint(from.Published, 10, 16)
		if err != nil {
			c.refuseKey(service, "ports", "published %q is not a port", from.Published)
			return port, false
		}
		port.Published = uint16(published)
	}
	switch port.Protocol {
	case swarm.TCP, swarm.UDP, swarm.SCTP:
	default:
		c.refuseKey(service, "ports", "protocol %q is unknown; write tcp, udp or sctp", port.Protocol)
		return port, false
	}
	if address, err := netip.ParseAddr(port.Address); port.Address != "" && err != nil {
		c.refuseKey(service, "ports", "host_ip %q is not an address", port.Address)
		return port, false
	} else if address.IsValid() && address.IsUnspecified() && address.Is4() {
		port.Address = ""
	}
	return port, true
}
