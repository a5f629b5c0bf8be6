package compose

import "github.com/gitswarm/gitswarm/swarm"

// KeyClass says what becomes of one key of a compose file, or of one value of
// it.
type KeyClass struct {
	Key   string      // "services.*.ports[].mode": * is any name, [] an item of a list, a final .** all below, "" around a name with dots
	Value string      // "" is any value; a final * is any rest: "service:*"
	Class swarm.Class // Honoured, Warned or Refused
	Text  string      // what it means, or the reason and the way out
}

// Table is every key that is known. Keys that begin with x- may stand
// anywhere and are not read; a key that is not in the table is refused.
func Table() []KeyClass {
	var table []KeyClass
	for _, part := range [][]KeyClass{
		topKeys(), containerKeys(), isolationKeys(), storageKeys(), networkingKeys(), runningKeys(), deployKeys(),
		networkKeys(), volumeKeys(), configKeys(), secretKeys(),
	} {
		table = append(table, part...)
	}
	return table
}

func honoured(key, text string) KeyClass { return KeyClass{key, "", swarm.Honoured, text} }
func warned(key, text string) KeyClass   { return KeyClass{key, "", swarm.Warned, text} }
func refused(key, text string) KeyClass  { return KeyClass{key, "", swarm.Refused, text} }

// of narrows a row to one value.
func (k KeyClass) of(value string) KeyClass {
	k.Value = value
	return k
}

func topKeys() []KeyClass {
	return []KeyClass{
		warned("version", "has no effect: the Compose Specification has no versions; remove it"),
		honoured("name", "names the stack, unless gitswarm.yaml does"),
		honoured("include", "further files of the repository"),
		honoured("include[].path", ""),
		honoured("include[].env_file", ""),
		honoured("include[].project_directory", ""),
		honoured("services", ""),
		honoured("services.*", ""),
		honoured("networks", ""),
		honoured("networks.*", ""),
		honoured("volumes", ""),
		honoured("volumes.*", ""),
		honoured("configs", ""),
		honoured("configs.*", ""),
		honoured("secrets", ""),
		honoured("secrets.*", ""),
		honoured("x-gitswarm", "gitswarm's own keys of a stack"),
		honoured("x-gitswarm.was", "the stack's former name; one that owns volumes keeps its name"),
		honoured("x-gitswarm.rebalance", "of services that say nothing of it themselves").of("auto"),
		honoured("x-gitswarm.rebalance", "").of("never"),
		refused("x-gitswarm.rebalance", "is unknown; write auto or never"),
		refused("models.**", "models are not run; run the model as a service"),
		refused("jobs.**", "is not in this release; write a service with deploy.mode: replicated-job"),
	}
}

func networkKeys() []KeyClass {
	return []KeyClass{
		honoured("networks.*.name", "of an external network; any other is named after the stack and its key"),
		honoured("networks.*.driver", "a network is a bridge on one machine and an overlay on many").of("overlay"),
		honoured("networks.*.driver", "a network is a bridge on one machine and an overlay on many").of("bridge"),
		honoured("networks.*.driver", "").of("default"),
		refused("networks.*.driver", "this driver is not in this release; use overlay, or network_mode: host"),
		honoured("networks.*.driver_opts", ""),
		honoured(`networks.*.driver_opts."com.docker.network.driver.mtu"`, "bytes"),
		refused("networks.*.driver_opts.encrypted", "encrypted networks are not in this release; remove it only if clear text between machines is fine"),
		refused("networks.*.driver_opts.*", "this option is not in this release; remove it if the network may do without"),
		honoured("networks.*.ipam", ""),
		honoured("networks.*.ipam.driver", "").of("default"),
		refused("networks.*.ipam.driver", "addresses are given by gitswarm; remove it"),
		honoured("networks.*.ipam.config", "one IPv4 subnet"),
		honoured("networks.*.ipam.config[].subnet", ""),
		honoured("networks.*.ipam.config[].gateway", ""),
		refused("networks.*.ipam.config[].ip_range", "is not in this release; give the range as the subnet"),
		refused("networks.*.ipam.config[].aux_addresses.**", "is not in this release; use names in place of addresses"),
		refused("networks.*.ipam.options.**", "addresses are given by gitswarm; remove it"),
		honoured("networks.*.external", "the network of another stack, whose name is STACK_NETWORK or STACK/NETWORK"),
		honoured("networks.*.external.name", ""),
		honoured("networks.*.internal", ""),
		honoured("networks.*.attachable", ""),
		honoured("networks.*.enable_ipv4", "").of("true"),
		refused("networks.*.enable_ipv4", "networks without IPv4 are not in this release; remove it"),
		honoured("networks.*.enable_ipv6", "").of("false"),
		refused("networks.*.enable_ipv6", "IPv6 networks are not in this release; remove it"),
		honoured("networks.*.labels.**", ""),
	}
}

func volumeKeys() []KeyClass {
	return []KeyClass{
		honoured("volumes.*.name", "of an external volume; any other is named after the stack and its key"),
		honoured("volumes.*.driver", "").of("local"),
		refused("volumes.*.driver", "volume drivers are not in this release; use local, or a bind of a mounted folder"),
		refused("volumes.*.driver_opts.**", "options of volumes are not in this release; mount it on the node and bind that folder"),
		honoured("volumes.*.external", "the volume of another stack, whose name is STACK_VOLUME or STACK/VOLUME"),
		honoured("volumes.*.external.name", ""),
		honoured("volumes.*.labels.**", ""),
	}
}

func configKeys() []KeyClass {
	return []KeyClass{
		honoured("configs.*.file", "a file of the repository, 1000 KiB at most"),
		honoured("configs.*.content", "text, variables written out"),
		honoured("configs.*.environment", "the value of a variable"),
		warned("configs.*.name", "the config is named after the stack and its key; its content decides what is replaced"),
		honoured("configs.*.external", "").of("false"),
		refused("configs.*.external", "external configs are not in this release; bring the content by file: or content:"),
		refused("configs.*.external.name", "external configs are not in this release; bring the content by file: or content:"),
		warned("configs.*.labels.**", "labels of configs are not kept"),
		refused("configs.*.template_driver", "templates in configs are not in this release; write the text out, or use ${VARIABLES} in content:"),
	}
}

func secretKeys() []KeyClass {
	return []KeyClass{
		honoured("secrets.*.file", "a file of the repository, 500 KiB at most"),
		honoured("secrets.*.environment", "the value of a variable"),
		warned("secrets.*.name", "the secret is named after the stack and its key; its content decides what is replaced"),
		honoured("secrets.*.external", "").of("false"),
		refused("secrets.*.external", "external secrets are not in this release; bring the content by file: or environment:"),
		refused("secrets.*.external.name", "external secrets are not in this release; bring the content by file: or environment:"),
		warned("secrets.*.labels.**", "labels of secrets are not kept"),
		refused("secrets.*.driver", "secret drivers are not in this release; bring the content by file: or environment:"),
		refused("secrets.*.driver_opts.**", "secret drivers are not in this release; bring the content by file: or environment:"),
		refused("secrets.*.template_driver", "templates in secrets are not in this release; write the text out"),
	}
}
