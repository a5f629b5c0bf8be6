package compose

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/gitswarm/gitswarm/swarm"
)

// task is what makes the service's containers.
func (c *conversion) task(from types.ServiceConfig) (swarm.TaskSpec, error) {
	task := swarm.TaskSpec{
		Image: from.Image, User: from.User, WorkingDir: from.WorkingDir, Hostname: from.Hostname,
		StopSignal: from.StopSignal, StopGrace: 10 * time.Second, ReadOnly: from.ReadOnly,
		Init: from.Init != nil && *from.Init, TTY: from.Tty, StdinOpen: from.StdinOpen,
		ShmSize: c.amount(from.Name, "shm_size", int64(from.ShmSize)), Sysctls: labels(from.Sysctls),
		CapAdd: capabilities(from.CapAdd), CapDrop: capabilities(from.CapDrop),
		Privileged: from.Privileged, HostPID: from.Pid == "host", HostIPC: from.Ipc == "host", HostNet: from.NetworkMode == "host",
		Health: c.health(from), ExtraHosts: hosts(from.ExtraHosts), Ulimits: ulimits(from.Ulimits),
		Devices: c.devices(from), Networks: c.attachments(from),
	}
	if from.StopGracePeriod != nil {
		task.StopGrace = c.duration(from.Name, "stop_grace_period", time.Duration(*from.StopGracePeriod))
	}
	c.commands(&task, from)

	var err error
	if task.Env, err = c.environmentOf(from); err != nil {
		return task, err
	}
	if task.Labels, err = c.labelsOf(from); err != nil {
		return task, err
	}
	return task, c.storage(&task, from)
}

// commands keeps what an empty list means: nothing of the image's own.
func (c *conversion) commands(task *swarm.TaskSpec, from types.ServiceConfig) {
	task.Entrypoint, task.Command = from.Entrypoint, from.Command
	switch {
	case from.Entrypoint != nil && len(from.Entrypoint) == 0:
		// Without an entrypoint the command is what runs.
		task.Entrypoint, task.Command = from.Command, nil
		if len(from.Command) == 0 {
			c.refuseKey(from.Name, "entrypoint", "an empty entrypoint needs a command")
		}
	case from.Command != nil && len(from.Command) == 0 && from.Entrypoint == nil:
		c.refuseKey(from.Name, "command", "an empty command needs an entrypoint, for the image's own is not known here")
	}
	if len(task.Command) == 0 {
		task.Command = nil
	}
}

// health is nil for the image's own check, and {"NONE"} for none at all.
func (c *conversion) health(from types.ServiceConfig) *swarm.Healthcheck {
	check := from.HealthCheck
	if check == nil {
		return nil
	}
	if check.Disable || len(check.Test) > 0 && check.Test[0] == "NONE" {
		return &swarm.Healthcheck{Test: []string{"NONE"}}
	}

	health := &swarm.Healthcheck{}
	if len(check.Test) > 0 {
		health = &swarm.Healthcheck{Interval: 30 * time.Second, Timeout: 30 * time.Second, Retries: 3, StartInterval: 5 * time.Second}
		health.Test, health.Shell = check.Test[1:], check.Test[0] == "CMD-SHELL"
		if len(health.Test) == 0 || health.Shell && len(health.Test) != 1 {
			c.refuseKey(from.Name, "healthcheck.test", "CMD needs a program, and CMD-SHELL one line")
		}
	}
	set := func(to *time.Duration, key string, value *types.Duration) {
		if value != nil && *value != 0 {
			*to = c.duration(from.Name, "healthcheck."+key, time.Duration(*value))
		}
	}
	set(&health.Interval, "interval", check.Interval)
	set(&health.Timeout, "timeout", check.Timeout)
	set(&health.StartPeriod, "start_period", check.StartPeriod)
	set(&health.StartInterval, "start_interval", check.StartInterval)
	if check.Retries != nil && *check.Retries != 0 {
		health.Retries = c.count(from.Name, "healthcheck.retries", *check.Retries)
	}
	return health
}

func capabilities(from []string) []string {
	var list []string
	for _, name := range from {
		list = append(list, strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func hosts(from types.HostsList) []swarm.Host {
	var list []swarm.Host
	for name, addresses := range from {
		for _, address := range addresses {
			list = append(list, swarm.Host{Name: name, Address: address})
		}
	}
	slices.SortFunc(list, func(a, b swarm.Host) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Address, b.Address))
	})
	return list
}

func ulimits(from map[string]*types.UlimitsConfig) []swarm.Ulimit {
	var list []swarm.Ulimit
	for _, name := range slices.Sorted(maps.Keys(from)) {
		limit := from[name]
		if limit == nil {
			continue
		}
		entry := swarm.Ulimit{Name: name, Soft: int64(limit.Soft), Hard: int64(limit.Hard)}
		if limit.Single != 0 {
			entry.Soft, entry.Hard = int64(limit.Single), int64(limit.Single)
		}
		list = append(list, entry)
	}
	return list
}

func (c *conversion) devices(from types.ServiceConfig) []swarm.Device {
	var list []swarm.Device
	for _, device := range from.Devices {
		if !strings.HasPrefix(device.Source, "/") {
			c.refuseKey(from.Name, "devices", "%s is not a path of the node; CDI devices are not in this release", device.Source)
		}
		list = append(list, swarm.Device{
			Source: device.Source, Target: cmp.Or(device.Target, device.Source), Permissions: cmp.Or(device.Permissions, "rwm"),
		})
	}
	slices.SortFunc(list, func(a, b swarm.Device) int { return cmp.Compare(a.Target, b.Target) })
	return list
}

// attachments puts a service on its networks; one that names none is on the
// stack's default network.
func (c *conversion) attachments(from types.ServiceConfig) []swarm.Attachment {
	keys := slices.Sorted(maps.Keys(from.Networks))
	switch from.NetworkMode {
	case "host", "none":
		return nil
	case "bridge", "default":
		keys = []string{"default"}
	}
	var list []swarm.Attachment
	for _, key := range keys {
		c.used[key] = true
		attachment := swarm.Attachment{Network: c.networkName(key)}
		if config := from.Networks[key]; config != nil {
			attachment.Aliases = slices.Clone(config.Aliases)
			slices.Sort(attachment.Aliases)
			attachment.Aliases = slices.Compact(attachment.Aliases)
		}
		list = append(list, attachment)
	}
	slices.SortFunc(list, func(a, b swarm.Attachment) int { return cmp.Compare(a.Network, b.Network) })
	return list
}

// environmentOf is the service's env files, in order, and then its
// environment.
func (c *conversion) environmentOf(from types.ServiceConfig) (map[string]string, error) {
	env, own := map[string]string{}, map[string]string{}
	for key, value := range from.Environment {
		if value != nil {
			own[key] = *value
		}
	}
	for _, envFile := range from.EnvFiles {
		data, err := c.need(from.Name, "env_file", envFile.Path, maxFileBytes)
		if absent(err) && !bool(envFile.Required) {
			continue
		}
		if err := c.refuseFile(from.Name, "env_file", err); err != nil {
			return nil, err
		}
		vars, found := parseRawEnv(inside(c.project.Dir, envFile.Path), data)
		if envFile.Format != "raw" {
			vars, found = parseEnv(inside(c.project.Dir, envFile.Path), data, either(c.model.Environment, own, env))
		}
		if found != nil {
			c.refuse(found.place, "services."+from.Name+".env_file", from.Name, "%s", found.text)
		}
		maps.Copy(env, vars)
	}
	for _, key := range slices.Sorted(maps.Keys(from.Environment)) {
		if _, ok := env[key]; !ok && from.Environment[key] == nil {
			c.warnKey(from.Name, "environment", "%s has no value, so the container does not get it; write %s=VALUE, or set it in %s", key, key, inside(c.project.Dir, ".env"))
		}
	}
	maps.Copy(env, own)
	for key := range env {
		if key == "" || strings.ContainsAny(key, "=\x00") || strings.ContainsRune(env[key], 0) {
			c.refuseKey(from.Name, "environment", "%q cannot be a variable's name or value", key)
		}
	}
	return labels(env), nil
}

func (c *conversion) labelsOf(from types.ServiceConfig) (map[string]string, error) {
	all := map[string]string{}
	for _, name := range from.LabelFiles {
		data, err := c.need(from.Name, "label_file", name, maxFileBytes)
		if err := c.refuseFile(from.Name, "label_file", err); err != nil {
			return nil, err
		}
		vars, found := parseEnv(inside(c.project.Dir, name), data, either(c.model.Environment))
		if found != nil {
			c.refuse(found.place, "services."+from.Name+".label_file", from.Name, "%s", found.text)
		}
		maps.Copy(all, vars)
	}
	maps.Copy(all, from.Labels)
	return labels(all), nil
}

// refuseFile notes that a file cannot be had. It returns what no commit mends.
func (c *conversion) refuseFile(service, key string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[fatal](err); ok {
		return err
	}
	at, rule := c.key(service, key)
	c.refuse(at, rule, service, "%s", fmt.Sprint(err))
	return nil
}
