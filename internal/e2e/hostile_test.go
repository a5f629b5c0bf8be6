package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHostileTreesAreRefusedByFileAndLineAndTheDaemonStaysUp(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 2, quick)})
	before, daemon := w.healthy("shop/web"), w.Daemon().PID()

	var services strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&services, "  s%d: {image: x}\n", i)
	}
	for claim, more := range map[string]string{
		"an env_file outside of the tree":    "    env_file: /etc/shadow\n",
		"a config outside of the tree":       "    configs: [c]\nconfigs: {c: {file: ../../../../etc/shadow}}\n",
		"nested interpolation of 60 KB":      "    hostname: " + strings.Repeat("${A:-", 10_000) + strings.Repeat("}", 10_000) + "\n",
		"more replicas than there are atoms": "    scale: 2000000000\n",
		"every port there is":                "    ports: [\"1-65535:1-65535\"]\n",
		"20,000 services":                    services.String(),
		"a NUL byte":                         "    hostname: \"a\x00b\"\n",
		"aliases that explode":               "x-a: &a [1,1,1,1,1,1,1,1]\nx-b: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nx-c: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nx-d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\nx-e: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nx-f: &f [*e,*e,*e,*e,*e,*e,*e,*e]\nx-g: [*f,*f,*f,*f,*f,*f,*f,*f]\n",
	} {
		commit := w.push(map[string]string{"shop/compose.yaml": web("v2", 2, quick) + more})
		if said := w.wait(commit, 4); !strings.Contains(said, "shop/compose.yaml:") {
			t.Errorf("%s: the refusal names no file and line:\n%.600s", claim, said)
		}
		if n := kept(before, w.healthy("shop/web")); n != 2 {
			t.Fatalf("%s: %d of 2 containers were left alone, want all", claim, n)
		}
	}
	if now := w.Daemon().PID(); now != daemon {
		t.Errorf("the daemon is process %d, was %d", now, daemon)
	}
	w.wait(w.push(map[string]string{"shop/compose.yaml": web("v2", 2, quick)}), 0)
}

func TestAnotherRegistryCredentialRestartsNothing(t *testing.T) {
	w := settled(t, map[string]string{"shop/compose.yaml": web("v1", 2, quick)})
	before := containers(t, w)
	credentials := filepath.Join(w.Dir, "config.json")
	for _, auth := range []string{"dXNlcjpvbmU=", "dXNlcjp0d28="} { // user:one, user:two
		must(t, os.WriteFile(credentials, []byte(fmt.Sprintf(`{"auths": {"registry.example.org": {"auth": %q}}}`, auth)), 0o600))
		w.Daemon().Stop()
		_, err := w.StartDaemon(t.Context(), "--registry-config", credentials)
		must(t, err)
		w.wait(w.push(map[string]string{"shop/compose.yaml": web("v1", 2, quick) + "# with credential " + auth + "\n"}), 0)
		if after := containers(t, w); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Fatalf("containers are %v with another credential, want the same processes %v", after, before)
		}
	}
}
