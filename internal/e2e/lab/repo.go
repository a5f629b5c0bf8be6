package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Repo is a bare git repository and a clone to push from.
type Repo struct {
	Bare string // what gitswarm watches
	Work string // the clone
}

// NewRepo makes a bare repository with the branch main and no commit.
func (l *Lab) NewRepo(name string) (*Repo, error) { return newRepo(l.Dir, name) }

func newRepo(dir, name string) (*Repo, error) {
	r := &Repo{Bare: filepath.Join(dir, name+".git"), Work: filepath.Join(dir, name)}
	if _, err := git("", "init", "--quiet", "--bare", "--initial-branch=main", r.Bare); err != nil {
		return nil, err
	}
	if _, err := git("", "init", "--quiet", "--initial-branch=main", r.Work); err != nil {
		return nil, err
	}
	_, err := git(r.Work, "remote", "add", "origin", r.Bare)
	return r, err
}

// Write puts files into the clone; an empty text removes the file.
func (r *Repo) Write(files map[string]string) error {
	for path, text := range files {
		full := filepath.Join(r.Work, path)
		if text == "" {
			if err := os.RemoveAll(full); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Copy puts a folder's content into the clone.
func (r *Repo) Copy(dir string) error { return os.CopyFS(r.Work, os.DirFS(dir)) }

// Push commits all that is in the clone and pushes it, and returns the commit.
func (r *Repo) Push(message string, flags ...string) (commit string, err error) {
	if commit, err = r.Commit(message); err != nil {
		return "", err
	}
	return commit, r.Send(flags...)
}

// Commit commits all that is in the clone, and returns the commit.
func (r *Repo) Commit(message string) (commit string, err error) {
	if _, err := git(r.Work, "add", "--all"); err != nil {
		return "", err
	}
	if _, err := git(r.Work, "commit", "--quiet", "--allow-empty", "--message", message); err != nil {
		return "", err
	}
	return git(r.Work, "rev-parse", "HEAD")
}

// Send pushes what is committed.
func (r *Repo) Send(flags ...string) error {
	_, err := git(r.Work, append([]string{"push", "--quiet", "origin", "HEAD:main"}, flags...)...)
	return err
}

// git runs git without the configuration of whoever runs the lab.
func git(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=Example", "GIT_AUTHOR_EMAIL=example@example.org", "GIT_COMMITTER_NAME=Example", "GIT_COMMITTER_EMAIL=example@example.org")
	text, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, text)
	}
	return strings.TrimSpace(string(text)), nil
}
