package compose

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/gitswarm/gitswarm/swarm"
)

// deploy fills in what deploy: says, and what it leaves to others.
func (c *conversion) deploy(service *swarm.Service, from types.ServiceConfig) {
	deploy := from.Deploy
	if deploy == nil {
		deploy = &types.DeployConfig{}
	}
	service.Labels = labels(deploy.Labels)
	service.Mode = swarm.Mode(cmp.Or(deploy.Mode, string(swarm.Replicated)))
	service.Endpoint = swarm.EndpointMode(cmp.Or(deploy.EndpointMode, string(swarm.VIP)))
	c.oneOf(from.Name, "deploy.mode", string(service.Mode), string(swarm.Replicated), string(swarm.Global), string(swarm.ReplicatedJob), string(swarm.GlobalJob))
	c.oneOf(from.Name, "deploy.endpoint_mode", string(service.Endpoint), string(swarm.VIP), string(swarm.DNSRR))

	c.replicaCount(service, from, deploy)
	c.constraints(service, from.Name, append(platform(from.Platform), deploy.Placement.Constraints...))
	c.spread(service, from, deploy.Placement)
	c.restart(service, from, deploy.RestartPolicy)
	service.Update = c.policy(from.Name, "deploy.update_config", deploy.UpdateConfig, swarm.FailureRollback)
	service.Rollback = c.policy(from.Name, "deploy.rollback_config", deploy.RollbackConfig, swarm.FailurePause)
	if service.Rollback.OnFailure == swarm.FailureRollback {
		c.warnKey(from.Name, "deploy.rollback_config.failure_action", "a rollback is never rolled back; it is taken as pause")
		service.Rollback.OnFailure = swarm.FailurePause
	}
}

func (c *conversion) oneOf(service, key, value string, known ...string) {
	if !slices.Contains(known, value) {
		c.refuseKey(service, key, "%q is unknown; write %s", value, strings.Join(known, ", "))
	}
}

func (c *conversion) replicaCount(service *swarm.Service, from types.ServiceConfig, deploy *types.DeployConfig) {
	count := deploy.Replicas
	if from.Scale != nil {
		count = from.Scale
	}
	if service.Mode.PerNode() {
		if count != nil {
			c.refuseKey(from.Name, "deploy.replicas", "replicas have no meaning in mode %s, which runs one task on each node; remove one of the two", service.Mode)
		}
		return
	}
	service.Replicas = 1
	if count != nil {
		service.Replicas = *count
	}
	if service.Replicas < 0 || service.Replicas > maxReplicas {
		c.refuseKey(from.Name, "deploy.replicas", "%d replicas are not 0 to %d", service.Replicas, maxReplicas)
	}
}

func (c *conversion) constraints(service *swarm.Service, name string, from []string) {
	for _, text := range from {
		constraint, err := swarm.ParseConstraint(text)
		if err != nil {
			c.refuseKey(name, "deploy.placement.constraints", "%v", err)
			continue
		}
		service.Constraints = append(service.Constraints, constraint.String())
	}
	slices.Sort(service.Constraints)
	service.Constraints = slices.Compact(service.Constraints)
}

// spread fills in the placement preferences, and how many replicas a node may
// have.
func (c *conversion) spread(service *swarm.Service, from types.ServiceConfig, placement types.Placement) {
	for _, preference := range placement.Preferences {
		label, ok := strings.CutPrefix(preference.Spread, "node.labels.")
		if !ok {
			label, ok = strings.CutPrefix(preference.Spread, "engine.labels.")
		}
		if !ok || label == "" {
			c.refuseKey(from.Name, "deploy.placement.preferences", "%q is no label; write spread: node.labels.NAME or engine.labels.NAME", preference.Spread)
			continue
		}
		service.Spread = append(service.Spread, preference.Spread)
	}
	service.MaxPerNode = c.count(from.Name, "deploy.placement.max_replicas_per_node", placement.MaxReplicas)
	if service.Mode.PerNode() && service.MaxPerNode > 0 {
		c.refuseKey(from.Name, "deploy.placement.max_replicas_per_node", "it has no meaning in mode %s, which runs one task on each node; remove one of the two", service.Mode)
	}
}

// platform says OS/ARCH[/VARIANT] as constraints.
func platform(text string) []string {
	if text == "" {
		return nil
	}
	system, arch, ok := strings.Cut(text, "/")
	if text == "linux" {
		return []string{"node.platform.os==linux"}
	}
	if !ok {
		return []string{"node.platform.arch==" + text}
	}
	arch, _, _ = strings.Cut(arch, "/")
	return []string{"node.platform.os==" + system, "node.platform.arch==" + arch}
}

// restart is deploy.restart_policy, else what restart: says, else any.
func (c *conversion) restart(service *swarm.Service, from types.ServiceConfig, policy *types.RestartPolicy) {
	restart := swarm.RestartPolicy{Condition: swarm.RestartAny, Delay: 5 * time.Second}
	if policy == nil {
		c.restartKey(&restart, from)
	} else {
		switch policy.Condition {
		case string(swarm.RestartOnFailure), string(swarm.RestartNone):
			restart.Condition = swarm.RestartCondition(policy.Condition)
		}
		if policy.Delay != nil {
			restart.Delay = c.duration(from.Name, "deploy.restart_policy.delay", time.Duration(*policy.Delay))
		}
		if policy.Window != nil {
			restart.Window = c.duration(from.Name, "deploy.restart_policy.window", time.Duration(*policy.Window))
		}
		if policy.MaxAttempts != nil {
			restart.MaxAttempts = c.count(from.Name, "deploy.restart_policy.max_attempts", *policy.MaxAttempts)
		}
	}
	if service.Mode.Job() && restart.Condition == swarm.RestartAny {
		restart.Condition = swarm.RestartOnFailure // a job that completed is done
	}
	service.Restart = restart
}

func (c *conversion) restartKey(restart *swarm.RestartPolicy, from types.ServiceConfig) {
	name, attempts, limited := strings.Cut(from.Restart, ":")
	switch name {
	case "", "always", "unless-stopped":
	case "no", "none", "false":
		restart.Condition = swarm.RestartNone
	case "on-failure":
		restart.Condition = swarm.RestartOnFailure
	default:
		c.refuseKey(from.Name, "restart", "%q is unknown; write no, always, on-failure, on-failure:N or unless-stopped", from.Restart)
	}
	if limited {
		count, err := strconv.ParseUint(attempts, 10, 31)
		if err != nil || name != "on-failure" {
			c.refuseKey(from.Name, "restart", "%q is unknown; write on-failure:N", from.Restart)
		}
		restart.MaxAttempts = int(count)
	}
}

func (c *conversion) policy(service, key string, from *types.UpdateConfig, action swarm.FailureAction) swarm.RolloutPolicy {
	policy := swarm.RolloutPolicy{Parallelism: 1, OnFailure: action, Monitor: 5 * time.Second, Order: swarm.StopFirst}
	if from == nil {
		return policy
	}
	if from.Parallelism != nil {
		policy.Parallelism = c.count(service, key+".parallelism", *from.Parallelism)
	}
	if c.gave(service, key+".monitor") {
		policy.Monitor = c.duration(service, key+".monitor", time.Duration(from.Monitor))
	}
	policy.Delay = c.duration(service, key+".delay", time.Duration(from.Delay))
	policy.OnFailure = swarm.FailureAction(cmp.Or(from.FailureAction, string(action)))
	policy.Order = swarm.Order(cmp.Or(from.Order, string(swarm.StopFirst)))
	policy.MaxFailureRatio = decimal(from.MaxFailureRatio)

	c.oneOf(service, key+".failure_action", string(policy.OnFailure), string(swarm.FailurePause), string(swarm.FailureContinue), string(swarm.FailureRollback))
	c.oneOf(service, key+".order", string(policy.Order), string(swarm.StopFirst), string(swarm.StartFirst))
	if !(policy.MaxFailureRatio >= 0 && policy.MaxFailureRatio <= 1) {
		c.refuseKey(service, key+".max_failure_ratio", "%v is not a ratio from 0 to 1", policy.MaxFailureRatio)
		policy.MaxFailureRatio = 0
	}
	return policy
}

func (c *conversion) duration(service, key string, value time.Duration) time.Duration {
	if value < 0 {
		c.refuseKey(service, key, "%s is negative", value)
	}
	return value
}

func (c *conversion) count(service, key string, value uint64) int {
	if value > math.MaxInt32 {
		c.refuseKey(service, key, "%d is too large", value)
		return 0
	}
	return int(value)
}

// resources joins deploy.resources with the older keys.
func (c *conversion) resources(service *swarm.Service, from types.ServiceConfig) {
	limits, reservations := &types.Resource{}, &types.Resource{}
	if from.Deploy != nil {
		limits = cmp.Or(from.Deploy.Resources.Limits, limits)
		reservations = cmp.Or(from.Deploy.Resources.Reservations, reservations)
	}
	service.Task.Limits = swarm.Resources{
		NanoCPUs: c.nanoCPUs(from.Name, "deploy.resources.limits.cpus", cmp.Or(limits.NanoCPUs.Value(), from.CPUS)),
		Memory:   c.amount(from.Name, "deploy.resources.limits.memory", cmp.Or(int64(limits.MemoryBytes), int64(from.MemLimit))),
		Pids:     max(0, cmp.Or(limits.Pids, from.PidsLimit)), // -1 means no limit
	}
	service.Reservations = swarm.Resources{
		NanoCPUs: c.nanoCPUs(from.Name, "deploy.resources.reservations.cpus", reservations.NanoCPUs.Value()),
		Memory:   c.amount(from.Name, "deploy.resources.reservations.memory", cmp.Or(int64(reservations.MemoryBytes), int64(from.MemReservation))),
		Generic:  c.generic(from.Name, reservations.GenericResources),
	}
}

// generic reads what is reserved of resources that nodes name themselves.
func (c *conversion) generic(service string, from []types.GenericResource) []swarm.GenericResource {
	const key = "deploy.resources.reservations.generic_resources"
	var reserved []swarm.GenericResource
	for _, resource := range from {
		spec := resource.DiscreteResourceSpec
		switch {
		case spec == nil || spec.Kind == "":
			c.refuseKey(service, key, "a kind is missing; write discrete_resource_spec: {kind: gpu, value: 1}")
		case spec.Value < 1:
			c.refuseKey(service, key, "%d of %s can't be reserved; write 1 or more", spec.Value, spec.Kind)
		case slices.ContainsFunc(reserved, func(r swarm.GenericResource) bool { return r.Kind == spec.Kind }):
			c.refuseKey(service, key, "%s is reserved twice; write the sum once", spec.Kind)
		default:
			reserved = append(reserved, swarm.GenericResource{Kind: spec.Kind, Count: spec.Value})
		}
	}
	slices.SortFunc(reserved, func(a, b swarm.GenericResource) int { return cmp.Compare(a.Kind, b.Kind) })
	return reserved
}

func (c *conversion) nanoCPUs(service, key string, cpus float32) int64 {
	if !(cpus >= 0 && cpus <= 1e6) {
		c.refuseKey(service, key, "%v is not a number of cores", cpus)
		return 0
	}
	return int64(math.Round(decimal(cpus) * 1e9))
}

func (c *conversion) amount(service, key string, bytes int64) int64 {
	if bytes < 0 {
		c.refuseKey(service, key, "%d bytes are negative", bytes)
		return 0
	}
	return bytes
}
