package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/gitswarm/gitswarm/internal/durable"
	"github.com/gitswarm/gitswarm/manager/api"
)

// remote is a cluster that is reached from afar, and what is needed for it.
type remote struct {
	Name  string `yaml:"name"`
	Host  string `yaml:"host"`
	Token string `yaml:"token,omitempty"`
	CA    string `yaml:"ca,omitempty"` // PEM: the one root that is believed
}

// remotes is the file of contexts. It holds tokens: its mode is 0600.
type remotes struct {
	Current  string   `yaml:"current,omitempty"`
	Contexts []remote `yaml:"contexts"`
	path     string
}

// readRemotes reads the user's contexts; a file that is not there has none.
func readRemotes() (remotes, error) {
	var r remotes
	folder, err := os.UserConfigDir()
	if err != nil {
		return r, nil // a service without a home has no contexts
	}
	r.path = filepath.Join(folder, "gitswarm", "contexts.yaml")
	data, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("read contexts: %w", err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&r); err != nil {
		return r, fmt.Errorf("read contexts %s: %w", r.path, err)
	}
	return r, nil
}

func (r remotes) write() error {
	if r.path == "" {
		return errors.New("keep contexts: this user has no home folder (set XDG_CONFIG_HOME)")
	}
	data, err := yaml.Marshal(r)
	if err != nil {
		return fmt.Errorf("keep contexts: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(r.path), 0o700); err != nil {
		return fmt.Errorf("keep contexts: %w", err)
	}
	if err := durable.WriteFile(r.path, data); err != nil {
		return fmt.Errorf("keep contexts: %w", err)
	}
	return nil
}

func (r remotes) find(name string) (remote, error) {
	for _, known := range r.Contexts {
		if known.Name == name {
			return known, nil
		}
	}
	return remote{}, fmt.Errorf("no context %q (gitswarm context ls lists them)", name)
}

// target is where the command goes: --host or GITSWARM_HOST, else a context,
// else this machine.
func (a *app) target() (remote, error) {
	if a.host != "" {
		return remote{Host: a.host, Token: os.Getenv("GITSWARM_TOKEN")}, nil
	}
	known, err := readRemotes()
	if err != nil {
		return remote{}, err
	}
	name := known.Current
	if a.context != "" {
		name = a.context
	}
	if name == "" {
		return remote{Host: defaultHost}, nil
	}
	return known.find(name)
}

func (a *app) contextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "context", Short: "Name clusters that are reached from afar",
		Long: "Name clusters that are reached from afar. --host and GITSWARM_HOST win over --context and GITSWARM_CONTEXT,\n" +
			"those over the context in use; without any of them this machine's daemon is asked.",
		Example: "  gitswarm context add prod --host https://m1.example.com:2380 --token-file token --ca-pin sha256:…\n" +
			"  gitswarm context use prod\n  gitswarm --context prod status",
	}
	cmd.AddCommand(a.contextAddCommand(), a.contextListCommand(), a.contextUseCommand(), a.contextRemoveCommand())
	return cmd
}

func (a *app) contextAddCommand() *cobra.Command {
	var host, tokenFile, pin, caFile string
	cmd := &cobra.Command{
		Use: "add NAME --host HOST", Short: "Name a cluster, and keep the token for it", Args: cobra.ExactArgs(1),
		Long: "Name a cluster, and keep the token for it in a file that only you can read. The pin, which gitswarm token user\n" +
			"prints, says which certificate authority is believed; without it the system's authorities are.",
		Example: "  gitswarm context add prod --host https://m1.example.com:2380 --token-file token --ca-pin sha256:…",
		RunE: func(cmd *cobra.Command, args []string) error {
			added := remote{Name: args[0], Host: host}
			token, err1 := readSmall(tokenFile)
			authority, err2 := readSmall(caFile)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			added.Token, added.CA = strings.TrimSpace(token), authority
			return a.addContext(cmd.Context(), added, pin)
		},
	}
	cmd.Flags().StringVar(&host, "host", "", "https://HOST[:2380] of any manager, or unix:///path")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file with a token of gitswarm token user")
	cmd.Flags().StringVar(&pin, "ca-pin", "", "sha256:… of the certificate authority to believe")
	cmd.Flags().StringVar(&caFile, "ca-file", "", "PEM file of the certificate authority to believe")
	_ = cmd.MarkFlagRequired("host")
	return cmd
}

// addContext keeps a context once its cluster has answered to it.
func (a *app) addContext(ctx context.Context, added remote, pin string) error {
	known, err := readRemotes()
	if err != nil {
		return err
	}
	if _, err := known.find(added.Name); err == nil {
		return fmt.Errorf("context %s is there already (gitswarm context rm %s forgets it)", added.Name, added.Name)
	}
	if pin != "" {
		if added.CA, err = fetchAuthority(ctx, added.Host, pin); err != nil {
			return err
		}
	}
	client, err := a.clientOf(added)
	if err != nil {
		return err
	}
	var version api.Version
	if err := client.get(ctx, "/v1/version", nil, &version); err != nil {
		return err
	}

	known.Contexts = append(known.Contexts, added)
	slices.SortFunc(known.Contexts, func(a, b remote) int { return strings.Compare(a.Name, b.Name) })
	if err := known.write(); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "context %s: %s answers → gitswarm context use %s\n", added.Name, added.Host, added.Name)
	return nil
}

func (a *app) contextListCommand() *cobra.Command {
	return a.listFlags(&cobra.Command{
		Use: "ls", Short: "List contexts", Example: "  gitswarm context ls", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			known, err := readRemotes()
			if err != nil {
				return err
			}
			type shown struct { // a token is never shown
				Name    string `json:"name"`
				Host    string `json:"host"`
				Current bool   `json:"current"`
				Token   bool   `json:"token"`
				Pinned  bool   `json:"pinned"`
			}
			views := []shown{}
			for _, c := range known.Contexts {
				views = append(views, shown{c.Name, c.Host, c.Name == known.Current, c.Token != "", c.CA != ""})
			}
			return a.show(views, func(bool) {
				list := a.table("NAME", "IN USE", "HOST", "TOKEN", "AUTHORITY")
				for _, v := range views {
					list.add(v.Name, pick(v.Current, "yes", "-"), v.Host, pick(v.Token, "yes", "-"), pick(v.Pinned, "pinned", "system's"))
				}
				list.write(a.stdout)
			})
		},
	})
}

func pick(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}

func (a *app) contextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "use [NAME]", Short: "Ask a context's cluster from now on; without a name, this machine again", Args: cobra.MaximumNArgs(1),
		Example: "  gitswarm context use prod\n  gitswarm context use",
		RunE: func(_ *cobra.Command, args []string) error {
			known, err := readRemotes()
			if err != nil {
				return err
			}
			name := append(args, "")[0]
			if name != "" {
				if _, err := known.find(name); err != nil {
					return err
				}
			}
			known.Current = name
			return known.write()
		},
	}
}

func (a *app) contextRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Forget a context and its token", Example: "  gitswarm context rm prod", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			known, err := readRemotes()
			if err != nil {
				return err
			}
			if _, err := known.find(args[0]); err != nil {
				return err
			}
			known.Contexts = slices.DeleteFunc(known.Contexts, func(c remote) bool { return c.Name == args[0] })
			if known.Current == args[0] {
				known.Current = ""
			}
			return known.write()
		},
	}
}
