package runtime

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

const maxCredentials = 1 << 20

// credentials finds user and password of a registry host in the docker-style
// config.json of Config.CredentialsFile, which is read anew each time. Without
// a user the password is an identity token. It runs no credential helper.
func (r *Runtime) credentials(host string) (user, password string, err error) {
	if r.config.CredentialsFile == "" {
		return "", "", nil
	}
	f, err := os.Open(r.config.CredentialsFile)
	if errors.Is(err, os.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("read registry credentials: %w", err)
	}
	defer f.Close()

	data, err := io.ReadAll(io.LimitReader(f, maxCredentials))
	if err != nil {
		return "", "", fmt.Errorf("read registry credentials: %w", err)
	}
	return findCredentials(data, host)
}

type dockerConfig struct {
	Auths map[string]struct {
		Auth          string `json:"auth"`
		Username      string `json:"username"`
		Password      string `json:"password"`
		IdentityToken string `json:"identitytoken"`
	} `json:"auths"`
}

func findCredentials(data []byte, host string) (user, password string, err error) {
	var config dockerConfig
	if err := json.Unmarshal(data, &config); err != nil {
		return "", "", fmt.Errorf("read registry credentials: %w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(config.Auths)) {
		entry := config.Auths[key]
		if credentialHost(key) != credentialHost(host) {
			continue
		}
		if entry.IdentityToken != "" {
			return "", entry.IdentityToken, nil
		}
		if entry.Auth == "" {
			return entry.Username, entry.Password, nil
		}
		decoded, err := base64.StdEncoding.DecodeString(entry.Auth)
		if err != nil {
			return "", "", fmt.Errorf("read registry credentials of %s: auth is not base64", key)
		}
		user, password, _ = strings.Cut(string(decoded), ":")
		return user, strings.TrimRight(password, "\x00"), nil
	}
	return "", "", nil
}

// credentialHost is the host that a key of config.json means: Docker Hub has
// three names.
func credentialHost(key string) string {
	_, rest, ok := strings.Cut(key, "://")
	if !ok {
		rest = key
	}
	host, _, _ := strings.Cut(rest, "/")
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		return "docker.io"
	}
	return host
}
