package compose

func deployKeys() []KeyClass {
	keys := []KeyClass{
		honoured("services.*.deploy", ""),
		honoured("services.*.deploy.mode", "replicated, global, replicated-job or global-job"),
		honoured("services.*.deploy.replicas", "10,000 at most"),
		honoured("services.*.deploy.endpoint_mode", "vip or dnsrr"),
		honoured("services.*.deploy.labels.**", "of the service: a change replaces no task"),
		honoured("services.*.deploy.placement", ""),
		honoured("services.*.deploy.placement.constraints", "KEY == VALUE or KEY != VALUE; all must hold"),
		honoured("services.*.deploy.placement.preferences", "level by level: the first spreads over all nodes, each further one within a value of the one before"),
		honoured("services.*.deploy.placement.preferences[].spread", "node.labels.NAME or engine.labels.NAME; nodes without the label count as one value"),
		honoured("services.*.deploy.placement.max_replicas_per_node", "unlimited unless set; what finds no node waits"),
		honoured("services.*.deploy.resources", ""),
		honoured("services.*.deploy.resources.limits", ""),
		honoured("services.*.deploy.resources.limits.cpus", ""),
		honoured("services.*.deploy.resources.limits.memory", ""),
		honoured("services.*.deploy.resources.limits.pids", ""),
		honoured("services.*.deploy.resources.reservations", "counted when a node is chosen"),
		honoured("services.*.deploy.resources.reservations.cpus", ""),
		honoured("services.*.deploy.resources.reservations.memory", ""),
		honoured("services.*.deploy.resources.reservations.generic_resources", "what nodes have by `gitswarm daemon --resource`"),
		honoured("services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec", ""),
		honoured("services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec.kind", ""),
		honoured("services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec.value", "1 or more"),
		refused("services.*.deploy.resources.reservations.devices.**", "GPUs are not in this release; policy may allow devices:"),
		honoured("services.*.deploy.restart_policy", ""),
		honoured("services.*.deploy.restart_policy.condition", "any unless set").of("any"),
		honoured("services.*.deploy.restart_policy.condition", "").of("on-failure"),
		honoured("services.*.deploy.restart_policy.condition", "").of("none"),
		warned("services.*.deploy.restart_policy.condition", "is taken as any").of("always"),
		warned("services.*.deploy.restart_policy.condition", "is taken as any").of("unless-stopped"),
		refused("services.*.deploy.restart_policy.condition", "is unknown; write any, on-failure or none"),
		honoured("services.*.deploy.restart_policy.delay", "5 s unless set"),
		honoured("services.*.deploy.restart_policy.max_attempts", "unlimited unless set"),
		honoured("services.*.deploy.restart_policy.window", "for ever unless set"),
	}
	keys = append(keys, rolloutKeys("services.*.deploy.update_config", "rollback")...)
	return append(keys, rolloutKeys("services.*.deploy.rollback_config", "pause")...)
}

func rolloutKeys(prefix, action string) []KeyClass {
	return []KeyClass{
		honoured(prefix, ""),
		honoured(prefix+".parallelism", "1 unless set; 0 is all at once"),
		honoured(prefix+".delay", "0 unless set"),
		honoured(prefix+".failure_action", "pause, continue or rollback; "+action+" unless set"),
		honoured(prefix+".monitor", "5 s unless set"),
		honoured(prefix+".max_failure_ratio", "0 unless set"),
		honoured(prefix+".order", "stop-first unless set, or start-first"),
	}
}
