package compose

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// hostile are trees that try to hurt the loader, each with what its refusal
// must say.
func hostile() map[string]struct{ files, want string } {
	nested := func(levels int) string {
		return strings.Repeat("${A:-", levels) + "x" + strings.Repeat("}", levels)
	}
	lines := func(count int, format string) string {
		var b strings.Builder
		for i := range count {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	web := "services:\n  web:\n    image: web\n"
	return map[string]struct{ files, want string }{
		"absolute env_file":        {web + "    env_file: /etc/passwd\n", "compose.yaml:4: services.web.env_file: /etc/passwd is a path of a machine"},
		"escaping env_file":        {web + "    env_file: ../../etc/passwd\n", "compose.yaml:4: services.web.env_file: ../../etc/passwd is outside of the repository"},
		"env_file by a variable":   {web + "    env_file: ${X:-/etc/passwd}\n", "compose.yaml:4: services.web.env_file: /etc/passwd is a path of a machine"},
		"absolute include":         {"include: [/etc/passwd]\n" + web, "compose.yaml:1: include[0]: /etc/passwd is a path of a machine"},
		"escaping include":         {"include: [{path: ../../x.yaml}]\n" + web, "compose.yaml:1: include[0]: ../../x.yaml is outside"},
		"include's folder":         {"include: [{path: x.yaml, project_directory: /etc}]\n" + web, "compose.yaml:1: include[0]: /etc is a path of a machine"},
		"include's env_file":       {"include: [{path: x.yaml, env_file: /etc/environment}]\n" + web, "compose.yaml:1: include[0]: /etc/environment is a path of a machine"},
		"absolute extends":         {web + "    extends: {file: /etc/passwd, service: x}\n", "compose.yaml:4: services.web.extends.file: /etc/passwd is a path of a machine"},
		"absolute config":          {web + "configs: {c: {file: /etc/passwd}}\n", "compose.yaml:4: configs.c.file: /etc/passwd is a path of a machine"},
		"escaping secret":          {web + "secrets: {c: {file: ../../etc/shadow}}\n", "compose.yaml:4: secrets.c.file: ../../etc/shadow is outside"},
		"home folder":              {web + "    volumes: [\"~/.ssh:/x\"]\n", "compose.yaml:4: services.web.volumes[0]: ~/.ssh is a path of a machine"},
		"bind beyond the root":     {web + "    volumes: [\"../../../etc:/x\"]\n", "compose.yaml:4: services.web.volumes[0]: ../../../etc is outside"},
		"NUL byte":                 {web + "    user: \"a\x00b\"\n", "compose.yaml:4: the file holds a NUL byte"},
		"alias bomb":               {"a: &a [x,x,x,x,x,x,x,x,x]\n" + bomb(12) + web, "compose.yaml:6: the file's aliases (*) stand for more than 400000 YAML nodes"},
		"alias in itself":          {"x-a: &a {b: [*a]}\n" + web, "compose.yaml:1: alias *a stands inside of what it stands for"},
		"deep flow":                {"x-a: " + strings.Repeat("[", 500) + strings.Repeat("]", 500) + "\n" + web, "compose.yaml:1: YAML is nested deeper than 100"},
		"deeper flow":              {"x-a: " + strings.Repeat("[", 200_000) + "\n" + web, "compose.yaml:1: is not YAML"},
		"many nodes":               {"x-a: [" + strings.Repeat("a,", 200_000) + "]\n" + web, "compose.yaml:1: the file has more than 100000 YAML nodes"},
		"nested interpolation":     {web + "    labels: {a: \"" + nested(10_000) + "\"}\n", "compose.yaml:4: services.web.labels.a: ${} is nested deeper than 16"},
		"nested in an env file":    {web + "    env_file: x.env\n-- x.env --\nA=" + nested(10_000) + "\n", "x.env:1: services.web.env_file: the file has too many $ for its size"},
		"interpolation side by":    {web + "    command: \"" + strings.Repeat("${A:-x}", 8_000) + "\"\n", ""},
		"interpolation that grows": {web + "    labels: {a: \"" + strings.Repeat("$BIG", 200) + "\"}\n-- .env --\nBIG=" + strings.Repeat("x", 10_000) + "\n", "compose.yaml:4: services.web.labels.a: the value grows beyond 1 MiB"},
		"20,000 services":          {"services:\n" + lines(20_000, "  s%d: {image: x}\n"), "compose.yaml:1002: services.s1000: the stack has more than 1000 services"},
		"1,000 services":           {"services:\n" + lines(1_000, "  s%d: {image: x, environment: {A: b}, ports: ['80']}\n"), ""},
		"replicas":                 {web + "    deploy: {replicas: 2000000000}\n", "compose.yaml:4: services.web.deploy.replicas: 2000000000 replicas are more than 10000"},
		"replicas beyond int64":    {web + "    deploy: {replicas: 20000000000000000000000}\n", "replicas are more than 10000"},
		"scale":                    {web + "    scale: 10001\n", "compose.yaml:4: services.web.deploy.replicas: 10001 replicas"},
		"port range":               {web + "    ports: [\"1-65535:1-65535\"]\n", "compose.yaml:4: services.web.ports[0]: the stack has more than 1000 ports"},
		"port range by a variable": {web + "    ports: [\"${P:-1-65535}\"]\n", "compose.yaml:4: services.web.ports[0]: the stack has more than 1000 ports"},
		"published range":          {web + "    ports: [{target: 80, published: 1-65535}]\n", "more than 1000 ports"},
		"exposed range":            {web + "    expose: [\"1-65535\"]\n", "compose.yaml:4: services.web.expose[0]: the stack has more than 1000 ports"},
		"large file":               {web + "# " + strings.Repeat("x", 1<<20) + "\n", "compose.yaml has more than 1 MiB"},
		"include of itself":        {"include: [compose.yaml]\n" + web, "include cycle detected"},
		"extends of itself":        {web + "    extends: {service: web}\n", "ircular reference"},
		"chain of includes":        {"include: [a0.yaml]\n" + web + chain(40), "a15.yaml:1: include[0]: include and extends lead deeper than 16 files"},
		"two documents":            {web + "---\n" + web, "compose.yaml:4: a second YAML document begins here"},
		"second document unread":   {web + "---\n{{{", "compose.yaml:"},
		"UTF-16":                   {"\xfe\xff ( (00", "compose.yaml:1: the file is UTF-16"},
		"not a mapping":            {"- a\n", "compose.yaml:1: a compose file is a mapping"},
		"empty":                    {"", "compose.yaml:1: the file is empty"},
		"binary":                   {"\x7fELF\x01\x02\x03", "compose.yaml:1: is not YAML"},
		"name with a slash":        {"name: ../x\n" + web, `compose.yaml:1: name: "../x" cannot name a stack`},
		"key that is no text":      {"? [a]\n: b\n" + web, "compose.yaml:1: a key is a text"},
		"services as a list":       {"services: [a]\n", "compose.yaml:1: services"},
		"service as a text":        {"services: {web: nginx}\n", "compose.yaml:1: services.web"},
		"negative port":            {web + "    ports: [\"-1:80\"]\n", "compose.yaml:4: invalid hostPort"},
		"huge mode":                {web + "    tmpfs: [\"/x:mode=99999999\"]\n", "compose.yaml:4: services.web.tmpfs"},
		"not a number":             {web + "    cpus: .nan\n", "compose.yaml:4:"},
	}
}

func bomb(levels int) string {
	var b strings.Builder
	for i := range levels {
		name, below := 'b'+rune(i), 'a'+rune(i)
		fmt.Fprintf(&b, "%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", name, name, below, below, below, below, below, below, below, below, below)
	}
	return b.String()
}

func chain(length int) string {
	var b strings.Builder
	for i := range length {
		fmt.Fprintf(&b, "-- a%d.yaml --\ninclude: [a%d.yaml]\n", i, i+1)
	}
	return b.String()
}

// files is the tree of a compose file and what follows "-- NAME --" lines.
func treeOf(text string) memory {
	tree, name := memory{}, "shop/compose.yaml"
	var data strings.Builder
	for line := range strings.Lines(text) {
		if next, ok := strings.CutPrefix(strings.TrimSuffix(line, " --\n"), "-- "); ok && strings.HasSuffix(line, " --\n") {
			tree.add(name, []byte(data.String()))
			name = "shop/" + next
			data.Reset()
			continue
		}
		data.WriteString(line)
	}
	tree.add(name, []byte(data.String()))
	return tree
}

func TestHostileTreesAreRefusedWithinTimeAndMemory(t *testing.T) {
	for name, attack := range hostile() {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			_, err := Load(t.Context(), Limits{}, treeOf(attack.files), Project{Dir: "shop"})
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("took %s", took)
			}
			if attack.want == "" {
				if err != nil {
					t.Errorf("refused: %.500v", err)
				}
				return
			}
			var refused *Error
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), attack.want) {
				t.Errorf("got %.500v, want %s", err, attack.want)
			}
		})
	}
	checkChildren(t)
}

// checkChildren measures the largest child so far.
func checkChildren(t *testing.T) {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &used); err != nil {
		t.Fatal(err)
	}
	t.Logf("the largest child had %d MiB", used.Maxrss>>10)
	if used.Maxrss > 512<<10 {
		t.Errorf("a child had %d KiB", used.Maxrss)
	}
}

// blob is a tree with one file of a gigabyte that must not be read.
type blob struct{ memory }

func (b blob) ReadFile(name string, limit int64) ([]byte, error) {
	if name == "shop/blob" {
		panic("a blob of 1 GB was read")
	}
	return b.memory.ReadFile(name, limit)
}

func TestALargeBlobIsNotRead(t *testing.T) {
	for _, compose := range []string{
		"services: {web: {image: web, configs: [c]}}\nconfigs: {c: {file: blob}}\n",
		"services: {web: {image: web, secrets: [c]}}\nsecrets: {c: {file: blob}}\n",
		"services: {web: {image: web, volumes: ['./blob:/blob:ro']}}\n",
		"services: {web: {image: web, env_file: blob}}\n",
		"include: [blob]\nservices: {web: {image: web}}\n",
	} {
		tree := blob{treeOf(compose)}
		tree.put("shop/blob", Entry{Kind: KindFile, Size: 1 << 30})
		_, err := Load(t.Context(), Limits{}, tree, Project{Dir: "shop"})
		if _, ok := errors.AsType[*Error](err); !ok || !strings.Contains(err.Error(), "compose.yaml:") || !strings.Contains(err.Error(), "more than") {
			t.Errorf("%s: got %v", compose, err)
		}
	}
}

func TestNothingOutsideOfTheFolderIsRead(t *testing.T) {
	outside := t.TempDir()
	canary := filepath.Join(outside, "canary")
	if err := os.WriteFile(canary, []byte("CANARY=sings\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(outside, "tree")
	if err := os.Mkdir(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"up": "../canary", "abs": canary, "dir": "..", "slash": "/"} {
		if err := os.Symlink(target, filepath.Join(inside, link)); err != nil {
			t.Fatal(err)
		}
	}
	ways := []string{canary, "../canary", "up", "abs", "dir/canary", "slash" + canary, "./up", "x/../up", "${X:-up}"}
	for _, way := range ways {
		for _, format := range []string{
			"services: {web: {image: web, env_file: [%q]}}",
			"services: {web: {image: web, env_file: [{path: %q, format: raw}]}}",
			"services: {web: {image: web, label_file: [%q]}}",
			"include: [%q]\nservices: {web: {image: web}}",
			"include: [{path: compose.yaml, env_file: %q}]\nservices: {web: {image: web}}",
			"services: {web: {image: web, extends: {file: %q, service: x}}}",
			"services: {web: {image: web, configs: [c]}}\nconfigs: {c: {file: %q}}",
			"services: {web: {image: web, secrets: [c]}}\nsecrets: {c: {file: %q}}",
			"services: {web: {image: web, volumes: [{type: bind, source: \"./%s\", target: /x}]}}",
		} {
			text := fmt.Sprintf(format, way)
			if err := os.WriteFile(filepath.Join(inside, "compose.yaml"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			loaded, err := Load(t.Context(), Limits{}, FromDir(inside), Project{Name: "shop"})
			var refused *Error
			if !errors.As(err, &refused) {
				t.Errorf("%s: not refused: %v", text, err)
			}
			if said := fmt.Sprint(loaded, err); strings.Contains(said, "sings") {
				t.Errorf("%s: was read: %s", text, said)
			}
			for _, f := range refused.Findings {
				if f.Class == swarm.Refused && f.File == "" {
					t.Errorf("%s: names no file: %v", text, f)
				}
			}
		}
	}
}

func TestNoVariableOfTheProcessReachesAStack(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "leaks")
	tree := treeOf("services: {web: {image: web, environment: [AWS_SECRET_ACCESS_KEY, HOME, PATH]}}\n")
	loaded, err := Load(t.Context(), Limits{}, tree, Project{Dir: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if env := loaded.Stack.Services[0].Task.Env; len(env) != 0 {
		t.Errorf("the container gets %v", env)
	}
	if len(loaded.Findings) != 3 {
		t.Errorf("what is left out is not warned about: %v", loaded.Findings)
	}
	if _, err := Load(t.Context(), Limits{}, treeOf("services: {web: {image: '${AWS_SECRET_ACCESS_KEY}'}}\n"), Project{Dir: "shop"}); err == nil {
		t.Error("a variable of the process was interpolated")
	}
}
