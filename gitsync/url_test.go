package gitsync

import (
	"strings"
	"testing"
)

func TestTakesAddressesApart(t *testing.T) {
	for raw, want := range map[string]string{
		"/srv/git/repo.git":                 "file  /srv/git/repo.git",
		"file:///srv/git/repo.git":          "file  /srv/git/repo.git",
		"file://localhost/srv/git":          "file  /srv/git",
		"https://github.com/o/r.git":        "https github.com /o/r.git",
		"https://me@github.com/o/r":         "https github.com /o/r me",
		"http://127.0.0.1:3000/o/r/":        "http 127.0.0.1:3000 /o/r",
		"HTTPS://example.org/r":             "https example.org /r",
		"ssh://git@example.org/o/r.git":     "ssh example.org:22 /o/r.git git",
		"ssh://ana@example.org:2222/~/r":    "ssh example.org:2222 r ana",
		"ssh://[::1]:2222/r":                "ssh [::1]:2222 /r git",
		"git@github.com:o/r.git":            "ssh github.com:22 o/r.git git",
		"example.org:/srv/my repo":          "ssh example.org:22 /srv/my repo git",
		"[::1]:r":                           "ssh [::1]:22 r git",
		"/srv/../etc/repo":                  "file  /etc/repo",
		"https://gitlab.example.org/a/b+c~": "https gitlab.example.org /a/b+c~",
	} {
		got, err := parseURL(raw)
		if text := strings.TrimSpace(strings.Join([]string{got.scheme, got.host, got.path, got.user}, " ")); err != nil || text != want {
			t.Errorf("%s: %q, %v; want %q", raw, text, err, want)
		}
	}
}

func TestRefusesAddressesThatCouldDoHarm(t *testing.T) {
	for _, raw := range []string{
		"", "-oProxyCommand=x", "--upload-pack=x", "ext::sh -c x", "git://example.org/r", "ftp://example.org/r", "repo", "./repo", "../repo", "~/repo",
		"https://user:pw@example.org/r", "https://example.org/r?x=1", "https://example.org/r#x", "https://example.org", "https:///r", "https://example.org/a/../b",
		"ssh://-oProxyCommand=x/r", "ssh://git@example.org/-r'x", "ssh://git@example.org/r'; rm -rf /", "git@example.org:-x", "git@example.org:r$(x)", "git@example.org:r`x`",
		"ssh://-x@example.org/r", "-x@example.org:r", "git@-x:r", "https://exa mple.org/r", "https://example.org/\x00", "https://example.org/\n", "file://host/r",
		"https://" + strings.Repeat("a", 3000) + "/r", "https://example.org/r\"x", "https://example.org/$(x)",
	} {
		if got, err := parseURL(raw); err == nil {
			t.Errorf("%q: %+v", raw, got)
		} else if strings.Contains(err.Error(), ":pw@") {
			t.Errorf("%q: the error shows the password: %v", raw, err)
		}
	}
}

func TestRefusesBranchNamesThatGitRefuses(t *testing.T) {
	for _, branch := range []string{"-x", "refs/heads/main", "a..b", "a b", "../x", "a~1", "a^", "a:b", "x.lock", "/a", "a/", "a\x00", "@{", strings.Repeat("a", 300)} {
		if checkBranch(branch) == nil {
			t.Errorf("%q is allowed", branch)
		}
	}
	for _, branch := range []string{"", "main", "feature/x", "release-1.2", "größe"} {
		if err := checkBranch(branch); err != nil {
			t.Error(err)
		}
	}
}
