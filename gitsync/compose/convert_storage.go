package compose

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/gitswarm/gitswarm/swarm"
)

// storage is what a container sees beside its image: mounts, configs, secrets
// and files of the repository.
func (c *conversion) storage(task *swarm.TaskSpec, from types.ServiceConfig) error {
	for i, volume := range from.Volumes {
		key := fmt.Sprintf("volumes[%d]", i)
		if !path.IsAbs(volume.Target) {
			c.refuseKey(from.Name, key, "target %q is not an absolute path in the container", volume.Target)
			continue
		}
		if volume.Type == types.VolumeTypeBind && !path.IsAbs(volume.Source) {
			if err := c.repository(task, from.Name, volume); err != nil {
				return err
			}
			continue
		}
		task.Mounts = append(task.Mounts, c.mount(from.Name, key, volume))
	}
	for _, text := range from.Tmpfs {
		task.Mounts = append(task.Mounts, c.tmpfs(from.Name, text))
	}
	for _, config := range from.Configs {
		if err := c.config(task, from.Name, types.FileReferenceConfig(config)); err != nil {
			return err
		}
	}
	for _, secret := range from.Secrets {
		if err := c.secret(task, from.Name, types.FileReferenceConfig(secret)); err != nil {
			return err
		}
	}
	c.targets(task, from.Name)
	return nil
}

// targets sorts by target, and refuses two things at one place.
func (c *conversion) targets(task *swarm.TaskSpec, service string) {
	slices.SortStableFunc(task.Mounts, func(a, b swarm.Mount) int { return cmp.Compare(a.Target, b.Target) })
	slices.SortStableFunc(task.Files, func(a, b swarm.File) int { return cmp.Compare(a.Target, b.Target) })
	taken := map[string]bool{}
	for _, mount := range task.Mounts {
		if taken[mount.Target] {
			c.refuseKey(service, "volumes", "two mounts have the target %s; remove one", mount.Target)
		}
		taken[mount.Target] = true
	}
	for _, file := range task.Files {
		if taken[file.Target] {
			c.refuseKey(service, string(file.Kind)+"s", "%s has a target that is taken: %s", file.Name, file.Target)
		}
		taken[file.Target] = true
	}
}

func (c *conversion) mount(service, key string, from types.ServiceVolumeConfig) swarm.Mount {
	mount := swarm.Mount{Kind: swarm.MountKind(from.Type), Source: from.Source, Target: path.Clean(from.Target), ReadOnly: from.ReadOnly}
	switch mount.Kind {
	case swarm.MountBind:
		mount.Source = path.Clean(from.Source)
		if from.Bind != nil {
			mount.Propagation, mount.CreateHost = from.Bind.Propagation, bool(from.Bind.CreateHostPath)
		}
		if mount.Propagation != "" && !slices.Contains([]string{"private", "rprivate", "shared", "rshared", "slave", "rslave"}, mount.Propagation) {
			c.refuseKey(service, key, "propagation %q is unknown; write rprivate, rslave or rshared", mount.Propagation)
		}
	case swarm.MountVolume:
		if from.Source != "" {
			mount.Source = c.volumeName(from.Source)
		}
		if from.Volume != nil {
			mount.NoCopy, mount.Subpath = from.Volume.NoCopy, from.Volume.Subpath
		}
		if mount.Subpath != "" && (!below(path.Clean(mount.Subpath)) || strings.ContainsRune(mount.Subpath, 0)) {
			c.refuseKey(service, key, "subpath %q leads outside of the volume", mount.Subpath)
		}
	case swarm.MountTmpfs:
		mount.Source = ""
		if from.Tmpfs != nil {
			mount.Size, mount.Mode = c.amount(service, key, int64(from.Tmpfs.Size)), fs.FileMode(from.Tmpfs.Mode&0o7777)
		}
	}
	return mount
}

// tmpfs reads TARGET[:OPTION,…].
func (c *conversion) tmpfs(service, text string) swarm.Mount {
	target, options, _ := strings.Cut(text, ":")
	mount := swarm.Mount{Kind: swarm.MountTmpfs, Target: path.Clean(target)}
	if !path.IsAbs(target) {
		c.refuseKey(service, "tmpfs", "target %q is not an absolute path in the container", target)
	}
	for option := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(option, "=")
		var err error
		switch name {
		case "", "rw":
		case "ro":
			mount.ReadOnly = true
		case "size":
			var bytes types.UnitBytes
			err = bytes.DecodeMapstructure(value)
			mount.Size = int64(bytes)
		case "mode":
			var mode uint64
			mode, err = strconv.ParseUint(value, 8, 12)
			mount.Mode = fs.FileMode(mode)
		case "exec", "noexec", "suid", "nosuid", "dev", "nodev", "uid", "gid", "nr_inodes", "nr_blocks", "noatime", "nodiratime", "relatime":
			mount.Options = append(mount.Options, option)
		default:
			err = errors.New("is unknown")
		}
		if err != nil || mount.Size < 0 {
			c.refuseKey(service, "tmpfs", "option %q: %v", option, cmp.Or(err, errors.New("is negative")))
		}
	}
	slices.Sort(mount.Options)
	return mount
}

// repository brings a file of the repository, or all files of a folder.
func (c *conversion) repository(task *swarm.TaskSpec, service string, from types.ServiceVolumeConfig) error {
	at, rule := c.bindPlace(service, from)
	if problem := escapes(c.project.Dir, from.Source); problem != "" {
		c.refuse(at, rule, service, "%s", problem)
		return nil
	}
	name := inside(c.project.Dir, from.Source)
	found, folder, err := c.from.files(name, maxRepoFiles)
	var refused *refusal
	switch {
	case errors.As(err, &refused) && refused.absent:
		c.refuse(at, rule, service, "%v; add it, or name a volume to keep data in", refused)
		return nil
	case errors.As(err, &refused):
		c.refuse(at, rule, service, "%v", refused)
		return nil
	case err != nil:
		return fatal{err}
	}

	if !from.ReadOnly {
		c.warn(at, rule, service, "%s is mounted read-only: files of the repository are content; name a volume to keep data in, or write :ro", name)
	}
	if len(found) == 0 {
		c.refuse(at, rule, service, "%s has no files; name a volume to keep data in", name)
	}
	for _, item := range found {
		target := path.Clean(from.Target)
		if folder {
			target = path.Join(target, strings.TrimPrefix(strings.TrimPrefix(item.Path, name), "/"))
		}
		c.repositoryFile(task, item, target)
	}
	if c.repoBytes > maxRepoBytes || c.repoFiles > maxRepoFiles {
		c.refuse(at, rule, service, "the stack mounts more than %s or %d files of the repository; bring large content in an image or a volume", size(maxRepoBytes), maxRepoFiles)
	}
	return nil
}

func (c *conversion) repositoryFile(task *swarm.TaskSpec, item file, target string) {
	c.repoFiles++
	c.repoBytes += item.Size
	file := swarm.File{Kind: swarm.FileRepo, Name: item.Path, Target: target, Content: swarm.Digest("repo:" + item.Path)}
	if item.Executable {
		file.Mode = 0o555
	}
	c.result.Paths[string(file.Content)] = item.Path
	task.Files = append(task.Files, file)
}

// bindPlace finds the line of a mount by its target: merging moves places.
func (c *conversion) bindPlace(service string, from types.ServiceVolumeConfig) (place, string) {
	rule := "services." + service + ".volumes"
	for i := len(c.docs) - 1; i >= 0; i-- {
		doc := c.docs[i]
		for j, item := range items(under(under(under(doc.top, "services"), service), "volumes")) {
			text := doc.text(item)
			if target := under(item, "target"); target != nil {
				text = ":" + doc.text(target)
			}
			if strings.Contains(text+":", ":"+from.Target+":") || path.Clean(text) == ":"+from.Target {
				return place{doc.name, item.Line}, fmt.Sprintf("%s[%d]", rule, j)
			}
		}
	}
	return c.classes.at(rule), rule
}

func (c *conversion) config(task *swarm.TaskSpec, service string, ref types.FileReferenceConfig) error {
	file := c.reference(service, "configs", swarm.FileConfig, ref)
	if file.Target = cmp.Or(ref.Target, ref.Source); !path.IsAbs(file.Target) {
		file.Target = "/" + file.Target
	}
	file.Target = path.Clean(file.Target)
	config := c.model.Configs[ref.Source]
	inline := config.Content != "" || config.Environment != ""
	return c.content(task, file, "configs", types.FileObjectConfig(config), inline, config.Content, maxConfig)
}

func (c *conversion) secret(task *swarm.TaskSpec, service string, ref types.FileReferenceConfig) error {
	file := c.reference(service, "secrets", swarm.FileSecret, ref)
	if file.Target = cmp.Or(ref.Target, ref.Source); !path.IsAbs(file.Target) {
		file.Target = "/run/secrets/" + file.Target
	}
	file.Target = path.Clean(file.Target)
	secret := types.FileObjectConfig(c.model.Secrets[ref.Source])
	return c.content(task, file, "secrets", secret, secret.Environment != "", secret.Content, maxSecret)
}

// reference is what a service says of a config or secret that it uses.
func (c *conversion) reference(service, section string, kind swarm.FileKind, ref types.FileReferenceConfig) swarm.File {
	file := swarm.File{Kind: kind, Name: ref.Source, Content: swarm.Digest(string(kind) + ":" + ref.Source)}
	id := func(text string) uint32 {
		number, err := strconv.ParseUint(cmp.Or(text, "0"), 10, 31)
		if err != nil {
			c.refuseKey(service, section, "%q of %s is not a number; names are not known outside of the image", text, ref.Source)
		}
		return uint32(number)
	}
	file.UID, file.GID = id(ref.UID), id(ref.GID)
	if ref.Mode != nil && *ref.Mode != 0o444 {
		file.Mode = fs.FileMode(*ref.Mode)
		if *ref.Mode <= 0 || *ref.Mode > 0o777 {
			c.refuseKey(service, section, "mode %o of %s is not 0001 to 0777", int64(*ref.Mode), ref.Source)
		}
	}
	return file
}

// content says where the bytes of a config or secret come from.
func (c *conversion) content(task *swarm.TaskSpec, file swarm.File, section string, from types.FileObjectConfig, inline bool, text string, limit int64) error {
	rule := section + "." + file.Name
	at, key := c.classes.at(rule), string(file.Content)
	task.Files = append(task.Files, file)
	_, isInline := c.result.Inline[key]
	_, isPath := c.result.Paths[key]
	switch {
	case bool(from.External) || isInline || isPath:
		return nil // external: refused by the table
	case inline && from.Environment != "":
		value, ok := c.model.Environment[from.Environment]
		if !ok {
			c.refuse(at, rule, "", "variable %s is not set; set it in %s or in this stack's variables: of gitswarm.yaml", from.Environment, inside(c.project.Dir, ".env"))
		}
		text = value
		fallthrough
	case inline:
		if int64(len(text)) > limit {
			c.refuse(at, rule, "", "has more than %s; make it smaller or split it", size(limit))
		}
		c.result.Inline[key] = []byte(text)
		return nil
	case from.File == "":
		c.refuse(at, rule, "", "has no content; write file:, or environment:")
		return nil
	}
	return c.contentFile(rule+".file", key, from.File, limit)
}

func (c *conversion) contentFile(rule, key, name string, limit int64) error {
	at := c.classes.at(rule)
	if problem := escapes(c.project.Dir, name); problem != "" {
		c.refuse(at, rule, "", "%s", problem)
		return nil
	}
	name = inside(c.project.Dir, name)
	found, folder, err := c.from.files(name, 1)
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		c.refuse(at, rule, "", "%v", refused)
	case err != nil:
		return fatal{err}
	case folder:
		c.refuse(at, rule, "", "%s is a folder; a file is needed here", name)
	case found[0].Size > limit:
		c.refuse(at, rule, "", "%v", tooLarge(name, limit))
	}
	c.result.Paths[key] = name
	return nil
}
