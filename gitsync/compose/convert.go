package compose

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/gitswarm/gitswarm/swarm"
)

// conversion turns what compose-go loaded into nouns of gitswarm, with all
// defaults filled in. Its problems go to the loading.
type conversion struct {
	*loading
	loaded
	result    rendered
	repoBytes int64
	repoFiles int
	used      map[string]bool // networks that services use
	libraries []finding       // what is refused in files that are only extended
}

func (c *conversion) stack() (rendered, error) {
	c.result = rendered{Inline: map[string][]byte{}, Paths: map[string]string{}}
	c.used = map[string]bool{}
	for _, f := range c.classes.findings {
		if f.library && f.Class == swarm.Refused {
			c.libraries = append(c.libraries, f)
		}
	}
	stack := &c.result.Stack
	stack.Name = swarm.StackName(c.project.Name)
	stack.Was = swarm.StackName(c.extension("x-gitswarm", c.model.Extensions).text("was"))

	for _, name := range slices.Sorted(maps.Keys(c.model.Services)) {
		service, err := c.service(c.model.Services[name])
		if err != nil {
			return rendered{}, err
		}
		stack.Services = append(stack.Services, service)
	}
	c.leftOut()
	stack.Networks = c.networks()
	stack.Volumes = c.volumes()
	return c.result, nil
}

// leftOut keeps of the refusals of services those that count: of services
// that run, and of keys that merging has left there. It adds those that
// reached a service from elsewhere.
func (c *conversion) leftOut() {
	stands := map[string]bool{}
	c.classes.findings = slices.DeleteFunc(c.classes.findings, func(f finding) bool {
		if f.Class != swarm.Refused || f.unknown || f.Service == "" {
			return false
		}
		written := strings.TrimPrefix(withoutIndexes(f.Rule), "services."+f.Service+".") + "."
		for key := range c.refused[f.Service] {
			if _, runs := c.model.Services[f.Service]; runs && strings.HasPrefix(written, key+".") {
				stands["services."+f.Service+"."+key] = stands["services."+f.Service+"."+key] || !f.library
				return false
			}
		}
		return true
	})
	for _, name := range slices.Sorted(maps.Keys(c.model.Services)) {
		for _, key := range slices.Sorted(maps.Keys(c.refused[name])) {
			if rule := "services." + name + "." + key; !stands[rule] {
				c.refuse(c.origin(name, key), rule, name, "%s", c.refused[name][key].Text)
			}
		}
	}
}

func withoutIndexes(rule string) string {
	var b strings.Builder
	for rule != "" {
		before, after, found := strings.Cut(rule, "[")
		b.WriteString(before)
		if !found {
			break
		}
		_, rule, _ = strings.Cut(after, "]")
	}
	return b.String()
}

// origin is where a key stands that a service took from elsewhere.
func (c *conversion) origin(service, key string) place {
	if found, ok := c.classes.places["services."+service+"."+key]; ok {
		return found
	}
	for _, f := range c.libraries {
		if strings.HasSuffix(withoutIndexes(f.Rule), "."+key) {
			return place{f.File, f.Line}
		}
	}
	return c.classes.at("services." + service)
}

// key is a key of a service: where it stands, and how it is called.
func (c *conversion) key(service, key string) (place, string) {
	rule := "services." + service + "." + key
	return c.classes.at(rule), rule
}

func (c *conversion) refuseKey(service, key, format string, args ...any) {
	at, rule := c.key(service, key)
	c.refuse(at, rule, service, format, args...)
}

func (c *conversion) warnKey(service, key, format string, args ...any) {
	at, rule := c.key(service, key)
	c.warn(at, rule, service, format, args...)
}

// given reports whether a merged service has a key: "deploy.update_config.monitor".
func (c *conversion) gave(service, key string) bool {
	var value any = c.given[service]
	for part := range strings.SplitSeq(key, ".") {
		mapping, ok := value.(map[string]any)
		if !ok {
			return false
		}
		if value = mapping[part]; value == nil {
			return false
		}
	}
	return true
}

func (c *conversion) service(from types.ServiceConfig) (swarm.Service, error) {
	service := swarm.Service{
		Name:      from.Name,
		Line:      c.classes.at("services." + from.Name).line,
		DependsOn: dependencies(from),
	}
	if from.Image == "" {
		c.refuseKey(from.Name, "image", "image is required: gitswarm does not build; build it in CI and name the result")
	}
	c.deploy(&service, from)
	c.own(&service, from)

	task, err := c.task(from)
	if err != nil {
		return swarm.Service{}, err
	}
	service.Task = task
	service.Ports = c.ports(&service.Task, from, service.Endpoint)
	c.resources(&service, from)
	return service, nil
}

func dependencies(from types.ServiceConfig) []swarm.Dependency {
	var list []swarm.Dependency
	for _, name := range slices.Sorted(maps.Keys(from.DependsOn)) {
		on := from.DependsOn[name]
		list = append(list, swarm.Dependency{
			Service: name, Condition: swarm.Condition(cmp.Or(on.Condition, string(swarm.ServiceStarted))),
			Optional: !on.Required, Restart: on.Restart,
		})
	}
	return list
}

// own reads x-gitswarm of a service.
func (c *conversion) own(service *swarm.Service, from types.ServiceConfig) {
	own := c.extension("services."+from.Name+".x-gitswarm", from.Extensions)
	service.Deadline = 10 * time.Minute
	if text := own.text("progress_deadline"); text != "" {
		deadline, err := time.ParseDuration(text)
		if err != nil || deadline <= 0 {
			c.refuseKey(from.Name, "x-gitswarm.progress_deadline", "%q is not a duration above zero; write 5m or 90s", text)
		}
		service.Deadline = deadline
	}
	service.RollbackGroup = own.text("rollback_group")
	ofStack := c.extension("x-gitswarm", c.model.Extensions).text("rebalance")
	service.Rebalance = cmp.Or(own.text("rebalance"), ofStack) == "auto"
	switch text := own.text("reversible"); text {
	case "", "false":
	case "true":
		service.Reversible = true
	default:
		c.refuseKey(from.Name, "x-gitswarm.reversible", "%q is neither true nor false", text)
	}
}

// extension is x-gitswarm, if it is a mapping.
type extensionKeys map[string]any

func (c *conversion) extension(rule string, from types.Extensions) extensionKeys {
	value, ok := from["x-gitswarm"]
	if !ok || value == nil {
		return nil
	}
	keys, ok := value.(map[string]any)
	if !ok {
		c.refuse(c.classes.at(rule), rule, "", "x-gitswarm is a mapping")
	}
	return keys
}

func (e extensionKeys) text(key string) string { return scalar(e[key]) }

func (c *conversion) networks() []swarm.Network {
	var list []swarm.Network
	for _, key := range slices.Sorted(maps.Keys(c.used)) {
		from := c.model.Networks[key]
		network := swarm.Network{
			Name: c.networkName(key), Internal: from.Internal, Attachable: from.Attachable,
			External: bool(from.External), Labels: labels(from.Labels),
		}
		c.ownName("networks."+key+".name", network.External)
		c.externalName("networks."+key, network.Name, network.External)
		if network.External {
			network.Internal, network.Attachable, network.Labels = false, false, nil
		}
		c.ipam(key, &network, from)
		list = append(list, network)
	}
	slices.SortFunc(list, func(a, b swarm.Network) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(list); i++ {
		if list[i].Name == list[i-1].Name {
			c.refuse(c.classes.at("networks."+list[i].Name), "networks."+list[i].Name, "", "two networks are called %s; rename the stack's own", list[i].Name)
		}
	}
	return list
}

// networkName is how a stack calls a network: the key, but STACK/NETWORK if it
// is another stack's.
func (c *conversion) networkName(key string) string {
	if from := c.model.Networks[key]; bool(from.External) {
		return ofAnother(cmp.Or(from.Name, key))
	}
	return key
}

// ofAnother is the cluster's form, STACK/NAME, of what an external name means:
// STACK_NAME, as tools of Compose call what a stack owns. A stack whose own
// name has an underscore is written with the slash.
func ofAnother(name string) string {
	stack, own, cut := strings.Cut(name, "_")
	if strings.Contains(name, "/") || !cut || stack == "" || own == "" {
		return name
	}
	return stack + "/" + own
}

// ownName warns about a name of what the stack itself makes.
func (c *conversion) ownName(rule string, external bool) {
	if at, ok := c.classes.places[rule]; ok && !external {
		c.warn(at, rule, "", "is named after the stack and its key; this name is that of an external one alone")
	}
}

// externalName refuses what can be the name of nothing.
func (c *conversion) externalName(rule, name string, external bool) {
	if external && !externalNames.MatchString(name) {
		c.refuse(c.classes.at(rule), rule, "", "external name %q is neither STACK_NAME nor STACK/NAME", name)
	}
}

var externalNames = regexp.MustCompile(`^([a-z0-9][a-z0-9_-]*/)?[a-zA-Z0-9][a-zA-Z0-9._-]*$`)

func (c *conversion) ipam(key string, network *swarm.Network, from types.NetworkConfig) {
	rule := "networks." + key + ".ipam"
	if len(from.Ipam.Config) > 1 {
		c.refuse(c.classes.at(rule), rule, "", "a network has one subnet; remove the others")
		return
	}
	for _, pool := range from.Ipam.Config {
		subnet, err := netip.ParsePrefix(pool.Subnet)
		if pool.Subnet != "" && (err != nil || !subnet.Addr().Is4() || subnet != subnet.Masked()) {
			c.refuse(c.classes.at(rule), rule, "", "subnet %s is not an IPv4 subnet; write one such as 10.5.0.0/24", pool.Subnet)
			return
		}
		gateway, err := netip.ParseAddr(pool.Gateway)
		if pool.Gateway != "" && (err != nil || !subnet.IsValid() || !subnet.Contains(gateway)) {
			c.refuse(c.classes.at(rule), rule, "", "gateway %s is not an address of the subnet", pool.Gateway)
			return
		}
		network.Subnet, network.Gateway = pool.Subnet, pool.Gateway
	}
	if text, ok := from.DriverOpts["com.docker.network.driver.mtu"]; ok {
		mtu, err := strconv.Atoi(text)
		if err != nil || mtu < 576 || mtu > 65535 {
			rule := "networks." + key + ".driver_opts"
			c.refuse(c.classes.at(rule), rule, "", "MTU %q is not a number from 576 to 65535", text)
		}
		network.MTU = mtu
	}
}

func (c *conversion) volumes() []swarm.Volume {
	var list []swarm.Volume
	for _, key := range slices.Sorted(maps.Keys(c.model.Volumes)) {
		from := c.model.Volumes[key]
		volume := swarm.Volume{Name: c.volumeName(key), External: bool(from.External), Labels: labels(from.Labels)}
		c.ownName("volumes."+key+".name", volume.External)
		c.externalName("volumes."+key, volume.Name, volume.External)
		if slices.ContainsFunc(list, func(v swarm.Volume) bool { return v.Name == volume.Name }) {
			c.refuse(c.classes.at("volumes."+key), "volumes."+key, "", "two volumes are called %s; rename the stack's own", volume.Name)
		}
		list = append(list, volume)
	}
	slices.SortFunc(list, func(a, b swarm.Volume) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (c *conversion) volumeName(key string) string {
	if from := c.model.Volumes[key]; bool(from.External) {
		return ofAnother(cmp.Or(from.Name, key))
	}
	return key
}

func labels(from map[string]string) map[string]string {
	if len(from) == 0 {
		return nil
	}
	return maps.Clone(from)
}

// decimal is a number as the file writes it: compose-go keeps 0.1 as a
// float32, which is not 0.1.
func decimal(number float32) float64 {
	value, err := strconv.ParseFloat(strconv.FormatFloat(float64(number), 'g', -1, 32), 64)
	if err != nil {
		return float64(number)
	}
	return value
}

// need reads a file of the tree that the stack cannot do without.
func (c *conversion) need(service, key, name string, limit int64) ([]byte, error) {
	at, rule := c.key(service, key)
	if problem := escapes(c.project.Dir, name); problem != "" {
		c.refuse(at, rule, service, "%s", problem)
		return nil, nil
	}
	data, err := c.from.read(inside(c.project.Dir, name), limit)
	var refused *refusal
	if err != nil && !errors.As(err, &refused) {
		return nil, fatal{fmt.Errorf("read %s: %w", name, err)}
	}
	return data, err
}
