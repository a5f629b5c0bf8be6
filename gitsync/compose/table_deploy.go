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
		refused("services.*.deploy.placement.preferences", "spreading is not in this release; use constraints"),
		refused("services.*.deploy.placement.preferences[].spread", "spreading is not in this release; use constraints"),
		refused("services.*.deploy.placement.max_replicas_per_node", "is not in this release; use mode: global, or constraints"),
		honoured("services.*.deploy.resources", ""),
		honoured("services.*.deploy.resources.limits", ""),
		honoured("services.*.deploy.resources.limits.cpus", ""),
		honoured("services.*.deploy.resources.limits.memory", ""),
		honoured("services.*.deploy.resources.limits.pids", ""),
		honoured("services.*.deploy.resources.reservations", "counted when a node is chosen"),
		honoured("services.*.deploy.resources.reservations.cpus", ""),
		honoured("services.*.deploy.resources.reservations.memory", ""),
		refused("services.*.deploy.resources.reservations.generic_resources.**", "is not in this release; label the nodes and use constraints"),
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
