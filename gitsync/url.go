package gitsync

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// The ways to reach a repository.
const (
	schemeLocal = "file"
	schemeHTTP  = "http"
	schemeHTTPS = "https"
	schemeSSH   = "ssh"
)

// location is where a repository is, taken apart and found harmless.
type location struct {
	scheme string
	user   string // may be empty
	host   string // with port for ssh; empty for files
	path   string // absolute for files, as the server wants it for ssh
	url    *url.URL
}

const maxURL = 2048

var (
	// A repository's path on a server becomes a word of a shell's command line there.
	serverPath = regexp.MustCompile(`^[\pL\pN._~/+@%:=,-][\pL\pN._~/+@%:=, -]*$`)
	scpLike    = regexp.MustCompile(`^(?:([A-Za-z0-9._-]+)@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([^:].*)$`)
	hostName   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
	userName   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)
)

var errURL = errors.New("use https://HOST/PATH, ssh://USER@HOST/PATH, USER@HOST:PATH, or the absolute path of a repository on this machine")

// parseURL takes a repository's address apart.
func parseURL(raw string) (location, error) {
	switch {
	case raw == "":
		return location{}, fmt.Errorf("repository URL is empty: %w", errURL)
	case len(raw) > maxURL:
		return location{}, fmt.Errorf("repository URL is longer than %d bytes", maxURL)
	case strings.HasPrefix(raw, "-"):
		return location{}, fmt.Errorf("repository URL %q begins with '-': %w", raw, errURL)
	case strings.ContainsFunc(raw, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }):
		return location{}, fmt.Errorf("repository URL %q holds control characters", raw)
	case strings.Contains(raw, "://"):
		return parseFullURL(raw)
	case strings.HasPrefix(raw, "/"):
		return localPath(raw)
	}

	if m := scpLike.FindStringSubmatch(raw); m != nil && !strings.Contains(m[2], "/") {
		return sshLocation(m[1], strings.Trim(m[2], "[]"), "22", m[3])
	}
	return location{}, fmt.Errorf("repository URL %q is not understood: %w", raw, errURL)
}

func parseFullURL(raw string) (location, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return location{}, fmt.Errorf("repository URL is not understood: %w", errURL) // the cause would repeat a password
	}
	if _, has := u.User.Password(); has {
		return location{}, fmt.Errorf("repository URL of %s holds a password: give it with --git-token-file instead", u.Host)
	}
	if u.RawQuery != "" || u.Fragment != "" || u.ForceQuery {
		return location{}, fmt.Errorf("repository URL %q has a query or a fragment: leave it out", raw)
	}

	switch scheme := strings.ToLower(u.Scheme); scheme {
	case schemeLocal:
		if u.Host != "" && u.Host != "localhost" {
			return location{}, fmt.Errorf("repository URL %q names the host %q: write file:///PATH", raw, u.Host)
		}
		return localPath(u.Path)
	case schemeHTTP, schemeHTTPS:
		return httpLocation(scheme, u)
	case schemeSSH:
		port := u.Port()
		if port == "" {
			port = "22"
		}
		// "/~/repo" asks for a path below the user's home.
		return sshLocation(u.User.Username(), u.Hostname(), port, strings.TrimPrefix(u.Path, "/~/"))
	case "git":
		return location{}, fmt.Errorf("repository URL %q: git:// proves nothing about the server: use https or ssh", raw)
	default:
		return location{}, fmt.Errorf("repository URL %q has the scheme %q: %w", raw, u.Scheme, errURL)
	}
}

func localPath(path string) (location, error) {
	if !filepath.IsAbs(path) {
		return location{}, fmt.Errorf("repository path %q is not absolute", path)
	}
	return location{scheme: schemeLocal, path: filepath.Clean(path)}, nil
}

func httpLocation(scheme string, u *url.URL) (location, error) {
	if !validHost(u.Hostname()) {
		return location{}, fmt.Errorf("repository URL has no valid host name: %q", u.Hostname())
	}
	if err := checkServerPath(u.Path); err != nil {
		return location{}, err
	}
	base := &url.URL{Scheme: scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}
	return location{scheme: scheme, user: u.User.Username(), host: u.Host, path: base.Path, url: base}, nil
}

func sshLocation(user, host, port, path string) (location, error) {
	if user == "" {
		user = "git"
	}
	if !userName.MatchString(user) {
		return location{}, fmt.Errorf("ssh user %q is not a plain name", user)
	}
	if !validHost(host) {
		return location{}, fmt.Errorf("repository URL has no valid host name: %q", host)
	}
	if err := checkServerPath(path); err != nil {
		return location{}, err
	}
	return location{scheme: schemeSSH, user: user, host: net.JoinHostPort(host, port), path: path}, nil
}

func validHost(host string) bool {
	return hostName.MatchString(host) || net.ParseIP(host) != nil
}

func checkServerPath(path string) error {
	switch {
	case path == "" || path == "/":
		return errors.New("repository URL has no path")
	case strings.HasPrefix(path, "-") || !serverPath.MatchString(path):
		return fmt.Errorf("repository path %q has characters that are not allowed: letters, digits and ._~/+@%%:=,- are", path)
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == ".." {
			return fmt.Errorf("repository path %q has '..'", path)
		}
	}
	return nil
}

// checkBranch refuses a branch that git would refuse too.
func checkBranch(branch string) error {
	if branch == "" {
		return nil
	}
	if strings.HasPrefix(branch, "refs/") || strings.HasPrefix(branch, "-") || len(branch) > 200 {
		return fmt.Errorf("branch %q: give the branch's short name, as in `git branch`", branch)
	}
	if err := plumbing.NewBranchReferenceName(branch).Validate(); err != nil {
		return fmt.Errorf("branch %q is not a name that git allows", branch)
	}
	return nil
}
