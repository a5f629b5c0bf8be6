package registry

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

const maxConfig = 1 << 20 // bytes of config.json

// credentials are those of a docker config.json.
type credentials struct {
	file string
	log  *slog.Logger

	mu    sync.Mutex
	hosts map[string]authn.AuthConfig // by registryKey
	seen  stamp
}

// stamp tells versions of a file apart; the zero stamp is a missing file.
type stamp struct {
	size int64
	at   time.Time
}

func loadCredentials(file string, log *slog.Logger) (*credentials, error) {
	c := &credentials{file: file, log: log}
	if file == "" {
		return c, nil
	}
	c.seen = stampOf(file)
	hosts, err := c.read()
	if errors.Is(err, fs.ErrNotExist) {
		log.Warn("registry credentials not found", "file", file)
		return c, nil
	}
	c.hosts = hosts
	return c, err
}

func stampOf(file string) stamp {
	info, err := os.Stat(file)
	if err != nil {
		return stamp{}
	}
	return stamp{size: info.Size(), at: info.ModTime()}
}

// changed reports whether the file is another one than was read.
func (c *credentials) changed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.file != "" && stampOf(c.file) != c.seen
}

// reload reads the file again. What cannot be read leaves what was known.
func (c *credentials) reload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = stampOf(c.file)
	hosts, err := c.read()
	if err != nil {
		c.log.Warn("registry credentials not read", "file", c.file, "error", err)
		return
	}
	c.hosts = hosts
}

// Resolve makes credentials a keychain of the registry library.
func (c *credentials) Resolve(target authn.Resource) (authn.Authenticator, error) {
	found := c.find(target.RegistryStr())
	if found == (authn.AuthConfig{}) {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(found), nil
}

func (c *credentials) find(registry string) authn.AuthConfig {
	if c.changed() {
		c.reload()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hosts[registryKey(registry)]
}

// read parses the file. Errors never quote it.
func (c *credentials) read() (map[string]authn.AuthConfig, error) {
	info, err := os.Stat(c.file)
	if err != nil {
		return nil, fmt.Errorf("read registry credentials: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxConfig {
		return nil, fmt.Errorf("read registry credentials: %s is not a file of at most %d bytes", c.file, maxConfig)
	}
	data, err := os.ReadFile(c.file)
	if err != nil {
		return nil, fmt.Errorf("read registry credentials: %w", err)
	}

	var config struct {
		Auths map[string]struct {
			Auth          string `json:"auth"`
			Username      string `json:"username"`
			Password      string `json:"password"`
			IdentityToken string `json:"identitytoken"`
			RegistryToken string `json:"registrytoken"`
		} `json:"auths"`
		CredsStore  string            `json:"credsStore"`
		CredHelpers map[string]string `json:"credHelpers"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("read registry credentials: %s is not a docker config.json: write {\"auths\": {\"REGISTRY\": {\"auth\": \"base64 of USER:PASSWORD\"}}}", c.file)
	}
	if config.CredsStore != "" || len(config.CredHelpers) > 0 {
		c.log.Warn("credential helpers passed over: put the credentials under auths", "file", c.file)
	}

	hosts := make(map[string]authn.AuthConfig, len(config.Auths))
	for registry, entry := range config.Auths {
		found := authn.AuthConfig{Username: entry.Username, Password: entry.Password, IdentityToken: entry.IdentityToken, RegistryToken: entry.RegistryToken}
		if entry.Auth != "" {
			if found.Username, found.Password, err = decodeAuth(entry.Auth); err != nil {
				return nil, fmt.Errorf("read registry credentials: %s: auths of %q: %w", c.file, registry, err)
			}
		}
		if found.IdentityToken != "" {
			found.Username, found.Password = "", ""
		}
		hosts[registryKey(registry)] = found
	}
	return hosts, nil
}

func decodeAuth(auth string) (user, password string, err error) {
	text, err := base64.StdEncoding.DecodeString(auth)
	user, password, ok := strings.Cut(strings.TrimRight(string(text), "\x00"), ":")
	if err != nil || !ok || user == "" {
		return "", "", errors.New("auth must be the base64 of USER:PASSWORD")
	}
	return user, password, nil
}
