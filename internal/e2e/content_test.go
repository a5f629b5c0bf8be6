package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// instant lets a rollout go on as soon as a replica is healthy.
const instant = "deploy: {update_config: {monitor: 0s}}"

func TestConfigsSecretsAndFilesAreSeenAsWritten(t *testing.T) {
	const secret = "a-secret-that-nobody-else-may-read"
	compose := `services:
  web:
    image: REGISTRY/app:v1
    user: "1000:1001"
    stop_grace_period: 1s
    configs:
      - {source: greeting, target: /etc/app/greeting, mode: 0440, uid: "1000", gid: "1001"}
      - inline
    secrets:
      - token
      - {source: token, target: renamed, mode: 0400, uid: "1000", gid: "1001"}
      - {source: hidden, target: /hidden/one, mode: 0400}
      - key
    volumes: ["./conf:/conf:ro", "./one.txt:/one/file.txt:ro"]
    ` + instant + `
  other: {image: "REGISTRY/app:v1", stop_grace_period: 1s, secrets: [hidden], ` + instant + `}
configs: {greeting: {file: ./greeting.txt}, inline: {content: "colour ${COLOUR}"}}
secrets: {token: {file: ./token.txt}, hidden: {file: ./hidden.txt}, key: {environment: KEY}}
`
	w := settled(t, map[string]string{
		"shop/.env": "COLOUR=green\nKEY=" + secret + "-in-env\n", "shop/greeting.txt": "hello\n", "shop/token.txt": secret, "shop/hidden.txt": secret + "-2",
		"shop/conf/a.conf": "a\n", "shop/conf/deep/b.conf": "b\n", "shop/one.txt": "one\n", "shop/compose.yaml": compose,
	})

	const web = "shop/web"
	expect(t, "what a replica reads", w.in(web, "cat", "/etc/app/greeting", "/inline", "/conf/a.conf", "/conf/deep/b.conf", "/one/file.txt", "/run/secrets/token", "/run/secrets/key"),
		"hello\n", "colour green", "a\nb\none\n", secret, secret+"-in-env")
	expect(t, "whose they are", w.in(web, "stat", "/etc/app/greeting", "/inline", "/run/secrets/token", "/run/secrets/renamed"),
		"-r--r----- 1000:1001", "-r--r--r-- 0:0 12 /inline", "-r--r--r-- 0:0", "-r-------- 1000:1001")
	expect(t, "reading what is root's alone", w.refused(web, "cat", "/hidden/one"), "permission denied")
	w.refused(web, "cat", "/run/secrets/hidden")
	for _, path := range []string{"/run/secrets/token", "/etc/app/greeting", "/conf/a.conf"} {
		expect(t, "writing "+path, w.run(1, "exec", "-u", "0", web, "--", "/app", "write", path, "x"), "read-only")
	}
	inMemory(t, w, web, "/run/secrets/token")
	if found := filesThatHold(t, filepath.Join(w.Dir, "data"), secret); len(found) > 0 {
		t.Errorf("the secret is in clear on the disk: %v", found)
	}
	for _, args := range [][]string{{"inspect", web}, {"inspect", "shop"}, {"events"}, {"history", "shop"}, {"plan"}, {"logs", "shop"}} {
		if said := w.run(0, args...); strings.Contains(said, secret) {
			t.Errorf("gitswarm %v tells the secret:\n%s", args, said)
		}
	}

	for path, text := range map[string]string{"shop/greeting.txt": "good evening\n", "shop/token.txt": secret + "-new", "shop/conf/deep/b.conf": "bb\n", "shop/conf/c.conf": "c\n", "shop/.env": "COLOUR=red\nKEY=" + secret + "\n"} {
		old, other := w.healthy(web), w.healthy("shop/other")
		w.wait(w.push(map[string]string{path: text}), 0)
		if kept(old, w.healthy(web)) != 0 || kept(other, w.healthy("shop/other")) != 1 {
			t.Errorf("a change of %s replaced %d of 1 replicas that use it, and %d of 1 that do not", path, 1-kept(old, w.healthy(web)), 1-kept(other, w.healthy("shop/other")))
		}
	}
	expect(t, "what the new replica reads", w.in(web, "cat", "/etc/app/greeting", "/run/secrets/token", "/conf/deep/b.conf", "/conf/c.conf", "/inline"),
		"good evening\n", secret+"-new", "bb\nc\n", "colour red")
	if found := filesThatHold(t, filepath.Join(w.Dir, "data"), secret); len(found) > 0 {
		t.Errorf("the secret is in clear on the disk after a change: %v", found)
	}
}

// inMemory reports a file that does not lie on a tmpfs of its own, hardened.
func inMemory(t *testing.T, w *world, target, path string) {
	t.Helper()
	for line := range strings.Lines(w.in(target, "cat", "/proc/self/mounts")) {
		fields := strings.Fields(line)
		if strings.HasPrefix(path, fields[1]) && fields[1] != "/" && fields[2] == "tmpfs" && fields[1] != "/run" {
			expect(t, "the mount of "+path, fields[3], "ro", "nosuid", "nodev", "noexec")
			return
		}
	}
	t.Errorf("%s lies on no tmpfs:\n%s", path, w.in(target, "cat", "/proc/self/mounts"))
}

// filesThatHold lists the files below a folder that have a text in them.
func filesThatHold(t *testing.T, dir, text string) (found []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // it went away meanwhile, or is no file
		}
		data, err := os.ReadFile(path)
		if err == nil && bytes.Contains(data, []byte(text)) {
			found = append(found, path)
		}
		return nil
	}))
	return found
}

func TestVolumesKeepTheirDataAndBindsNeedLeave(t *testing.T) {
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "file"), []byte("from the node"), 0o644))
	compose := func(round int, more string) map[string]string {
		return map[string]string{
			"data/compose.yaml": fmt.Sprintf(`services:
  db:
    image: REGISTRY/app:v1
    environment: {ROUND: "%d"}
    stop_grace_period: 1s
    volumes:
      - files:/var/files
      - {type: tmpfs, target: /fast, tmpfs: {size: 4k}}
      - {type: bind, source: %s, target: /outside, read_only: true}
%s    %s
  reader: {image: "REGISTRY/app:v1", volumes: ["files:/shared:ro"], stop_grace_period: 1s, %s}
volumes: {files: {}}
`, round, outside, more, instant, instant),
			"keep/compose.yaml":  "services: {web: {image: \"REGISTRY/app:v1\", " + instant + "}}\n",
			"keep2/compose.yaml": "services: {web: {image: \"REGISTRY/app:v1\", " + instant + "}}\n",
		}
	}
	w := settled(t, compose(1, ""))
	const db = "data/db"
	w.in(db, "write", "/var/files/note", "kept")
	expect(t, "a volume of two services", w.in("data/reader", "cat", "/shared/note"), "kept")
	expect(t, "writing a volume that is mounted read-only", w.refused("data/reader", "write", "/shared/note", "x"), "read-only")
	expect(t, "a bind mount", w.in(db, "cat", "/outside/file"), "from the node")
	expect(t, "writing a read-only bind mount", w.refused(db, "write", "/outside/file", "x"), "read-only")
	expect(t, "a full tmpfs", w.refused(db, "write", "/fast/file", strings.Repeat("x", 5000)), "no space")

	old := w.healthy(db)
	w.wait(w.push(compose(2, "")), 0)
	if kept(old, w.healthy(db)) != 0 {
		t.Fatal("the replica was not replaced")
	}
	expect(t, "the volume after a replacement", w.in(db, "cat", "/var/files/note"), "kept")

	old = w.healthy(db)
	commit := w.push(compose(3, "      - /etc:/host-etc:ro\n"))
	expect(t, "the refusal", w.wait(commit, 4), "sensitive-bind", "data/compose.yaml:", "/etc", "allow")
	if kept(old, w.healthy(db)) != 1 {
		t.Error("a refused stack was touched")
	}
	config := filepath.Join(w.Dir, "gitswarm.yaml")
	must(t, os.WriteFile(config, []byte("allow:\n  - {stack: data, service: db, rule: sensitive-bind, value: /etc}\n"), 0o644))
	w.Daemon().Stop()
	_, err := w.StartDaemon(t.Context(), "--config", config)
	must(t, err)
	w.until("the grant counts", func() bool { return kept(old, w.healthy(db)) == 0 })
	w.wait(commit, 0)
	expect(t, "the granted bind mount", w.in(db, "cat", "/host-etc/hostname"))

	expect(t, "volume ls", w.run(0, "volume", "ls"), "data/files")
	expect(t, "removing a volume in use", w.run(1, "volume", "rm", "data/files"), "belongs to stack data")
	w.push(map[string]string{"data/compose.yaml": ""})
	w.run(0, "approve", w.planThatWaits("owns volumes"))
	w.until("the stack is gone", func() bool {
		return len(filesThatHold(t, filepath.Join(w.Dir, "data", "volumes"), "kept")) == 1 && !strings.Contains(w.run(0, "ps"), "data/")
	})
	w.run(0, "volume", "rm", "data/files")
	w.until("the volume's data is gone", func() bool { return len(filesThatHold(t, filepath.Join(w.Dir, "data", "volumes"), "kept")) == 0 })
	w.until("volume ls forgets it", func() bool { return !strings.Contains(w.run(0, "volume", "ls"), "data/files") })
}
