package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

// leastKey is how long the key of a backup is at least.
const leastKey = 12

// backupKey reads a key from a file, or asks for it; twice where a typing
// error would make the backup worthless.
func (a *app) backupKey(file string, twice bool) (string, error) {
	key, err := readSmall(file)
	key = strings.TrimSpace(key)
	if err == nil && file == "" {
		key, err = a.secret("key of the backup")
		if err == nil && twice && terminal(a.stdin) {
			var again string
			if again, err = a.secret("once more"); err == nil && again != key {
				err = errors.New("read key: the two differ")
			}
		}
	}
	switch {
	case err != nil:
		return "", err
	case len(key) < leastKey || len(key) > maxSecret:
		return "", fmt.Errorf("read key: it has %d bytes, give from %d to %d (openssl rand -base64 32 makes one)", len(key), leastKey, maxSecret)
	}
	return key, nil
}

func (a *app) backupCommand() *cobra.Command {
	var keyFile string
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Keep the cluster's state in a sealed file", Args: cobra.ExactArgs(1),
		Long: "Keep the cluster's state in a file: its log's state, rendered stacks, secrets, certificate authority. It is sealed by\n" +
			"a key that is typed, or read from a file or standard input; who has both has the cluster. Volumes are not in it.",
		Example: "  gitswarm backup cluster.gsb --key-file key\n  gitswarm restore cluster.gsb --key-file key     # on an empty machine",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			key, err := a.backupKey(keyFile, true)
			if err != nil {
				return err
			}
			data, err := json.Marshal(map[string]string{"key": key})
			if err != nil {
				return fmt.Errorf("encode request: %w", err)
			}
			answer, err := client.send(cmd.Context(), http.MethodPost, "/v1/cluster/backup", nil, bytes.NewReader(data),
				http.Header{"Content-Type": {"application/json"}})
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			size, err := writeWhole(args[0], answer.Body)
			if err != nil {
				return fmt.Errorf("keep backup: %w", err)
			}
			fmt.Fprintf(a.stdout, "%s: %s; keep its key elsewhere\n", args[0], bytesText(size))
			return nil
		},
	}
	cmd.Flags().StringVar(&keyFile, "key-file", "", "file with the key (asked for unless set)")
	return cmd
}

// writeWhole writes a file that is there wholly or not at all.
func writeWhole(name string, content io.Reader) (size int64, err error) {
	file, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return 0, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if size, err = io.Copy(file, content); err != nil {
		return 0, err
	}
	if err := errors.Join(file.Sync(), file.Close(), os.Rename(file.Name(), name)); err != nil {
		return 0, err
	}
	return size, nil
}

func (a *app) restoreCommand() *cobra.Command {
	var keyFile string
	var flags reachFlags
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Begin again from a backup, on an empty machine", Args: cobra.ExactArgs(1),
		Long: "Begin again from a backup on a machine that is in no cluster. It becomes the only manager; the nodes of the\n" +
			"backup are listed as down. Machines that come back with their disks are taken up again; others join anew.",
		Example: "  gitswarm restore cluster.gsb --key-file key --advertise 10.0.0.1",
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("read backup: %w", err)
			}
			defer file.Close()
			client, err := a.client()
			if err != nil {
				return err
			}
			key, err := a.backupKey(keyFile, false)
			if err != nil {
				return err
			}
			query := url.Values{}
			for name, value := range map[string]string{"advertise": flags.advertise, "listen": flags.listen, "dataPath": flags.dataPath} {
				if value != "" {
					query.Set(name, value)
				}
			}
			answer, err := client.send(cmd.Context(), http.MethodPost, "/v1/machine/restore", query, file,
				http.Header{"Content-Type": {"application/octet-stream"}, "Gitswarm-Key": {key}})
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			var begun api.Beginner
			if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(&begun); err != nil {
				return fmt.Errorf("read answer of daemon: %w", err)
			}
			return a.show(begun, func(bool) {
				fmt.Fprintf(a.stdout, "cluster %s goes on; this machine, %s at %s, is its only manager\n", begun.Cluster, begun.Node, dash(begun.Address))
				fmt.Fprintln(a.stdout, "→ gitswarm node ls, then gitswarm token manager for two more")
			})
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&keyFile, "key-file", "", "file with the key (asked for unless set)")
	return a.listFlags(cmd)
}
