package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/swarm"
)

// daemonConfig is all that a daemon is told.
type daemonConfig struct {
	DataDir        string
	RunDir         string
	Containerd     string         // socket of the host's own; empty means the embedded one
	RegistryConfig string         // docker-style config.json; empty means none
	AddressPool    []netip.Prefix // that networks get their subnets from; empty means the allocator's own
	Allow          []swarm.Grant  // what stacks may do although policy refuses it
	Listen         string         // host:port of the managers' port, where this machine is one; empty means every address
	Advertise      string         // host:port that other nodes dial; empty means this machine's routed address
	DataPath       string         // address that containers' traffic is sent to; empty means Advertise's
	APIListen      string         // host:port of the users' API; empty means none
	Offer          offer          // labels and generic resources of the machine
	Log            *slog.Logger
}

// socket is where the control API listens.
func (c daemonConfig) socket() string { return filepath.Join(c.RunDir, "gitswarm.sock") }

type daemonFlags struct {
	dataDir, runDir, config, containerd, registry, level string
	listen, advertise, dataPath, apiListen               string
	pools, labels, resources                             []string
}

const defaultConfigFile = "/etc/gitswarm/gitswarm.yaml"

func (a *app) daemonCommand() *cobra.Command {
	var flags daemonFlags
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Run this machine's manager and agent",
		Long: "Run this machine's manager and agent. systemd runs it; there is one a machine.\n" +
			"Containers outlive it: stop it, upgrade it, start it again.",
		Example: "  systemctl enable --now gitswarm\n" +
			"  gitswarm daemon --data-dir /tmp/try/data --run-dir /tmp/try/run --log-level debug",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := flags.read(cmd)
			if err != nil {
				return err
			}
			return runDaemon(cmd.Context(), config)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.dataDir, "data-dir", "/var/lib/gitswarm", "folder for all that must last")
	f.StringVar(&flags.runDir, "run-dir", "/run/gitswarm", "folder for sockets and what a reboot may take")
	f.StringVar(&flags.config, "config", defaultConfigFile, "configuration file")
	f.StringVar(&flags.containerd, "containerd", "", "socket of the host's own containerd (one is embedded)")
	f.StringVar(&flags.registry, "registry-config", "", "docker-style config.json with registry credentials")
	f.StringSliceVar(&flags.pools, "address-pool", nil, "addresses that networks get their subnets from, CIDR, where the cluster has none of its own")
	f.StringVar(&flags.listen, "listen", "", "host:port for other machines, where this one is a manager (0.0.0.0:2377 unless set)")
	f.StringVar(&flags.advertise, "advertise", "", "host[:port] that other machines dial (the address of the default route unless set)")
	f.StringVar(&flags.dataPath, "data-path", "", "address for containers' traffic between machines (--advertise's unless set)")
	f.StringVar(&flags.apiListen, "api-listen", "", "host:port of the API for users with tokens, as in 0.0.0.0:2380 (off unless set)")
	f.StringArrayVar(&flags.labels, "label", nil, "label of this machine, NAME=VALUE: engine.labels.NAME in placement constraints")
	f.StringArrayVar(&flags.resources, "resource", nil, "what this machine has and services may reserve, KIND=COUNT or KIND=NAME,NAME")
	f.StringVar(&flags.level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// read joins flags and configuration file: a flag that is given wins.
func (f daemonFlags) read(cmd *cobra.Command) (daemonConfig, error) {
	file, err := readConfig(f.config, cmd.Flags().Changed("config"))
	if err != nil {
		return daemonConfig{}, err
	}
	pick := func(flag, given, configured string) string {
		if configured == "" || cmd.Flags().Changed(flag) {
			return given
		}
		return configured
	}
	pools := f.pools
	if !cmd.Flags().Changed("address-pool") && len(file.AddressPool) > 0 {
		pools = file.AddressPool
	}

	config := daemonConfig{
		DataDir: pick("data-dir", f.dataDir, file.DataDir), RunDir: pick("run-dir", f.runDir, file.RunDir),
		Containerd: pick("containerd", f.containerd, file.Containerd), RegistryConfig: pick("registry-config", f.registry, file.RegistryConfig),
		Listen: pick("listen", f.listen, file.Listen), Advertise: pick("advertise", f.advertise, file.Advertise),
		DataPath: pick("data-path", f.dataPath, file.DataPath), APIListen: pick("api-listen", f.apiListen, file.APIListen),
		Allow: file.grants(),
	}
	if config.Offer, err = readOffer(file, f.labels, f.resources); err != nil {
		return config, err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(pick("log-level", f.level, file.LogLevel))); err != nil {
		return config, fmt.Errorf("read log level: %w (give debug, info, warn or error)", err)
	}
	config.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	for _, pool := range pools {
		prefix, err := netip.ParsePrefix(pool)
		if err != nil {
			return config, fmt.Errorf("read address pool: %w (give CIDR, as in 10.128.0.0/9)", err)
		}
		config.AddressPool = append(config.AddressPool, prefix.Masked())
	}
	return config, nil
}
