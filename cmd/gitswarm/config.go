package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"go.yaml.in/yaml/v3"

	"github.com/gitswarm/gitswarm/swarm"
)

// fileConfig is the daemon's configuration file. What it leaves out has the
// flag's default.
type fileConfig struct {
	DataDir        string       `yaml:"data_dir"`
	RunDir         string       `yaml:"run_dir"`
	Containerd     string       `yaml:"containerd"`
	RegistryConfig string       `yaml:"registry_config"`
	AddressPool    []string     `yaml:"address_pool"`
	LogLevel       string       `yaml:"log_level"`
	Listen         string       `yaml:"listen"`
	Advertise      string       `yaml:"advertise"`
	DataPath       string       `yaml:"data_path"`
	APIListen      string       `yaml:"api_listen"`
	Allow          []allowEntry `yaml:"allow"`

	Labels    map[string]string `yaml:"labels"`    // of the machine: engine.labels
	Resources map[string]string `yaml:"resources"` // gpu: 2, or the pieces' names: gpu: GPU-1,GPU-2
}

// allowEntry lets a stack do what policy refuses.
type allowEntry struct {
	Stack   string `yaml:"stack"`
	Service string `yaml:"service"` // all of the stack's unless set
	Rule    string `yaml:"rule"`
	Value   string `yaml:"value"` // any unless set
}

const maxConfigBytes = 1 << 20

// readConfig reads the configuration file; it may be absent unless it was
// asked for.
func readConfig(name string, required bool) (fileConfig, error) {
	var config fileConfig
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return config, nil
	}
	if err != nil {
		return config, fmt.Errorf("read configuration: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxConfigBytes+1))
	if err != nil {
		return config, fmt.Errorf("read configuration %s: %w", name, err)
	}
	if len(data) > maxConfigBytes {
		return config, fmt.Errorf("read configuration %s: it is larger than %d bytes", name, maxConfigBytes)
	}

	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&config); err != nil && !errors.Is(err, io.EOF) {
		return config, fmt.Errorf("read configuration %s: %w", name, err)
	}
	for i, entry := range config.Allow {
		if entry.Stack == "" || entry.Rule == "" {
			return config, fmt.Errorf("read configuration %s: allow entry %d: stack and rule are required", name, i+1)
		}
	}
	return config, nil
}

func (c fileConfig) grants() []swarm.Grant {
	var grants []swarm.Grant
	for _, entry := range c.Allow {
		grants = append(grants, swarm.Grant{
			Stack: swarm.StackName(entry.Stack), Service: entry.Service, Rule: entry.Rule, Value: entry.Value,
		})
	}
	return grants
}
