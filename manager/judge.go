package manager

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/manager/registry"
	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/policy"
	"github.com/gitswarm/gitswarm/swarm"
)

// resolveAtOnce bounds how many images of one stack are asked for side by side.
const resolveAtOnce = 8

// resolve pins each image of a candidate. An image whose string did not change
// keeps what it was resolved to, so a comment on a `:latest` stack restarts
// nothing and needs no registry.
func (m *Manager) resolve(ctx context.Context, view *store.View, c *candidate) {
	if c.stack == nil {
		return
	}
	missing := make(map[string]swarm.ImageFacts)
	for i := range c.stack.Services {
		service := &c.stack.Services[i]
		if facts, pinned := c.pinned(*service); pinned {
			service.Image = facts
		} else {
			missing[service.Task.Image] = swarm.ImageFacts{}
		}
	}
	if err := m.ask(ctx, view, missing); err != nil {
		c.refuse(swarm.ProblemWaiting, err.Error())
		return
	}
	for i := range c.stack.Services {
		service := &c.stack.Services[i]
		if facts, asked := missing[service.Task.Image]; asked {
			service.Image = facts
		}
		applyFacts(service)
	}
}

func (c *candidate) pinned(service swarm.Service) (swarm.ImageFacts, bool) {
	for _, stack := range c.pins {
		before, had := stack.Service(service.Name)
		if had && before.Task.Image == service.Task.Image && before.Image.Manifest != "" {
			return before.Image, true
		}
	}
	return swarm.ImageFacts{}, false
}

// ask fills in what the registries say of each image.
func (m *Manager) ask(ctx context.Context, view *store.View, images map[string]swarm.ImageFacts) error {
	names := make([]string, 0, len(images))
	for name := range images {
		names = append(names, name)
	}
	slices.Sort(names)

	facts := make([]swarm.ImageFacts, len(names))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(resolveAtOnce)
	for i, name := range names {
		group.Go(func() error {
			image, err := m.registry.Resolve(ctx, name, platform(view))
			if err != nil {
				return err
			}
			facts[i] = factsOf(image)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, name := range names {
		images[name] = facts[i]
	}
	return nil
}

func factsOf(image registry.Image) swarm.ImageFacts {
	return swarm.ImageFacts{Manifest: image.Manifest, Platforms: image.Platforms, Health: image.Health, StopSignal: image.StopSignal}
}

// platform is what most nodes are: the one whose health check an image's index
// is asked for.
func platform(view *store.View) string {
	for _, node := range view.Nodes() {
		if node.Description.OS != "" {
			return node.Description.OS + "/" + node.Description.Arch
		}
	}
	return "linux/amd64"
}

// applyFacts completes a spec with what its image says: the digest, and the
// health check and stop signal that the compose file leaves to it.
func applyFacts(service *swarm.Service) {
	spec := &service.Task
	spec.Manifest = service.Image.Manifest
	spec.Health = health(spec.Health, service.Image.Health)
	if spec.StopSignal == "" {
		spec.StopSignal = service.Image.StopSignal
	}
}

// health joins what the compose file says of the health check with what the
// image says: a file that gives no test gives its times to the image's test.
func health(written, image *swarm.Healthcheck) *swarm.Healthcheck {
	joined := written
	switch {
	case written == nil:
		joined = image
	case len(written.Test) == 0 && image != nil:
		own := *written
		own.Test, own.Shell = image.Test, image.Shell
		joined = &own
	}
	if joined == nil || len(joined.Test) == 0 || joined.Test[0] == "NONE" {
		return nil
	}
	return joined
}

// grant makes the grants of the cluster's configuration those that policy
// heeds. Where they differ from those before, every stack is judged again with
// the first answer of its source.
func (m *Manager) grant(ctx context.Context) error {
	m.regranted = !slices.Equal(m.config.Grants, m.store.View().Grants())
	if !m.regranted {
		return nil
	}
	return m.propose(ctx, store.Command{PutGrants: &store.PutGrants{Grants: m.config.Grants}})
}

// judge asks policy.
func (m *Manager) judge(view *store.View, c *candidate) {
	if c.stack == nil {
		return
	}
	verdict, err := m.rules.Judge(*c.stack, view.Grants(), c.place)
	switch {
	case err != nil:
		c.refuse(swarm.ProblemPolicy, err.Error())
	case verdict.Answer == swarm.Deny:
		c.refuse(swarm.ProblemPolicy, verdict.Violations[0].Text, verdict.Violations...)
	}
}

// place tells where the compose file writes a key of a service.
func (c *candidate) place(service, key string) (file string, line int) {
	return c.loaded.Place(service, key)
}

// seal stores what tasks and later leaders will read by digest: file contents,
// specs, the rendered stack.
func (m *Manager) seal(ctx context.Context, c *candidate) {
	if c.stack == nil {
		return
	}
	for i := range c.stack.Services {
		if err := m.sealService(ctx, c, &c.stack.Services[i]); err != nil {
			c.refuse(swarm.ProblemWaiting, err.Error())
			return
		}
	}
	content, err := m.put(ctx, c.stack)
	if err != nil {
		c.refuse(swarm.ProblemWaiting, err.Error())
		return
	}
	c.head.Content = content
}

func (m *Manager) sealService(ctx context.Context, c *candidate, service *swarm.Service) error {
	for i := range service.Task.Files {
		file := &service.Task.Files[i]
		data, loaded := c.loaded.Contents[string(file.Content)]
		if !loaded {
			return fmt.Errorf("store %s %q of service %s: its content was not loaded", file.Kind, file.Name, service.Name)
		}
		put := m.blobs.Put
		if file.Kind == swarm.FileSecret {
			put = m.blobs.PutSecret
		}
		digest, err := put(ctx, data)
		if err != nil {
			return fmt.Errorf("store %s %q of service %s: %w", file.Kind, file.Name, service.Name, err)
		}
		file.Content = digest
	}
	spec, err := m.put(ctx, service.Task)
	service.Spec = spec
	return err
}

// put stores the encoded form of v.
func (m *Manager) put(ctx context.Context, v any) (swarm.Digest, error) {
	data, err := codec.Encode(v)
	if err != nil {
		return "", err
	}
	return m.blobs.Put(ctx, data)
}

// examine refuses content that failed before, and a rename that would leave
// volumes behind.
func (m *Manager) examine(view *store.View, c *candidate) {
	if c.stack == nil {
		return
	}
	if was := c.stack.Was; was != "" && c.record.Accepted.Content == "" && ownsVolumes(view, was, nil) {
		c.refuse(swarm.ProblemLoad, fmt.Sprintf("stack %s owns volumes, which do not move with a rename; keep the name, or let a commit before this one remove the volumes", was))
		return
	}
	for _, q := range c.record.Quarantine {
		if q.Content == c.head.Content {
			c.problem = &swarm.Problem{Kind: swarm.ProblemQuarantine, Text: fmt.Sprintf(
				"%s has the content that failed as %s: %s; change it, or type `gitswarm retry %s`", c.head.Revision.Short(), q.Revision.Short(), q.Why, c.found.Name)}
		}
	}
}

// guard asks policy about what the commit takes away, and lets those stacks
// wait that need an approval.
func (m *Manager) guard(ctx context.Context, view *store.View, source swarm.Source, c *commit) error {
	c.moved = source.Status.Scope != "" && source.Status.Scope != scope(source, c.revision)
	d := policy.Deletions{Source: source, Moved: c.moved, Left: c.kept, Unread: sorted(c.cache.unread)}
	if err := m.noteRemoved(ctx, view, c, &d); err != nil {
		return err
	}
	shrinking := make(map[swarm.StackName]bool)
	for _, candidate := range c.candidates {
		if gone := candidate.goneServices(); len(gone) > 0 && candidate.problem == nil {
			shrinking[candidate.found.Name] = true
			d.Services = append(d.Services, gone...)
		}
	}
	if len(d.Services) > 0 { // it takes reading every stack, which most commits need not
		existing, err := m.countServices(ctx, view, source.ID)
		if err != nil {
			return err
		}
		d.Existing = existing
	}
	for _, r := range recent(source.Status.Removed, m.now()) {
		d.RecentStacks += r.Stacks
		d.RecentServices += r.Services
	}

	verdict := policy.JudgeDeletions(d)
	if verdict.Answer != swarm.Ask {
		c.removals = swarm.Removal{At: m.now(), Stacks: len(d.Stacks), Services: len(d.Services)}
		return nil
	}
	plan := "p-" + c.revision.Commit()[:min(8, len(c.revision.Commit()))]
	c.asked = &swarm.Problem{Kind: swarm.ProblemApproval, Text: verdict.Why + "; type `gitswarm approve " + plan + "`", Plan: plan}
	for _, candidate := range c.candidates {
		if candidate.problem == nil && (!source.Approved || shrinking[candidate.found.Name]) {
			asked := *c.asked
			candidate.problem = &asked
		}
	}
	return nil
}

// noteRemoved adds the stacks that the commit no longer has, but those of
// which nothing was ever agreed to.
func (m *Manager) noteRemoved(ctx context.Context, view *store.View, c *commit, d *policy.Deletions) error {
	for _, record := range c.removed {
		stack, err := m.content(ctx, record.Accepted.Content)
		if err != nil {
			return err
		}
		if stack == nil {
			continue
		}
		d.Stacks = append(d.Stacks, record.Name)
		d.Services = append(d.Services, servicesOf(record.Name, stack.Services)...)
		if ownsVolumes(view, record.Name, stack) {
			d.Owning = append(d.Owning, record.Name)
		}
	}
	return nil
}

func (c *candidate) goneServices() []swarm.ServiceID {
	if c.before == nil || c.stack == nil {
		return nil
	}
	var gone []swarm.ServiceID
	for _, service := range c.before.Services {
		if _, still := c.stack.Service(service.Name); !still {
			gone = append(gone, swarm.NewServiceID(c.found.Name, service.Name))
		}
	}
	return gone
}

func servicesOf(stack swarm.StackName, services []swarm.Service) []swarm.ServiceID {
	ids := make([]swarm.ServiceID, 0, len(services))
	for _, service := range services {
		ids = append(ids, swarm.NewServiceID(stack, service.Name))
	}
	return ids
}

func ownsVolumes(view *store.View, name swarm.StackName, stack *swarm.Stack) bool {
	if stack != nil && slices.ContainsFunc(stack.Volumes, func(v swarm.Volume) bool { return !v.External }) {
		return true
	}
	return slices.ContainsFunc(view.Volumes(), func(v swarm.KeptVolume) bool {
		return strings.HasPrefix(string(v.ID), string(name)+"/") && v.Orphan.IsZero() && v.Dropped.IsZero()
	})
}

func (m *Manager) countServices(ctx context.Context, view *store.View, source swarm.SourceID) (n int, err error) {
	for _, record := range view.Stacks() {
		if record.Source != source || record.Removing {
			continue
		}
		stack, err := m.content(ctx, record.Accepted.Content)
		if err != nil {
			return 0, err
		}
		if stack != nil {
			n += len(stack.Services)
		}
	}
	return n, nil
}
