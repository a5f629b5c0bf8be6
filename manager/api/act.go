package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gitswarm/gitswarm/swarm"
)

// SourceRequest asks for a repository to be watched.
type SourceRequest struct {
	URL         string `json:"url" minLength:"1" maxLength:"4096" doc:"file path, file://, http(s)://, ssh:// or user@host:path"`
	Branch      string `json:"branch,omitempty" maxLength:"255" doc:"the remote's HEAD unless set"`
	Path        string `json:"path,omitempty" maxLength:"4096" doc:"folder within the tree"`
	Environment string `json:"environment,omitempty" maxLength:"255" doc:"of gitswarm.yaml"`
	PollSeconds int    `json:"pollSeconds,omitempty" minimum:"0" maximum:"86400" doc:"30 unless set"`
	Username    string `json:"username,omitempty" maxLength:"255"`
	Password    string `json:"password,omitempty" maxLength:"65536" doc:"or a token"`
	SSHKey      string `json:"sshKey,omitempty" maxLength:"65536" doc:"PEM"`
	KnownHosts  string `json:"knownHosts,omitempty" maxLength:"262144"`
	Approved    bool   `json:"approved,omitempty" doc:"act on the first sync without gitswarm approve"`
}

// Done is what an act did.
type Done struct {
	Text     string   `json:"text" doc:"past tense, for people"`
	Stacks   []string `json:"stacks,omitempty" doc:"that it concerns"`
	Revision string   `json:"revision,omitempty"`
}

type (
	onStack[T any] struct {
		Stack string `path:"stack" maxLength:"255"`
		Body  T
	}
	someServices struct {
		Services []string `json:"services,omitempty" maxItems:"1000" doc:"all of the stack's unless set"`
	}
	redeployBody struct {
		Services []string `json:"services,omitempty" maxItems:"1000" doc:"all of the stack's unless set"`
		Pull     bool     `json:"pull,omitempty" doc:"resolve the images anew"`
	}
	rollbackBody struct {
		To string `json:"to,omitempty" maxLength:"255" doc:"a revision of the history; the last healthy one before unless set"`
	}
	scaleBody struct {
		Replicas map[string]int `json:"replicas" minProperties:"1" maxProperties:"1000" doc:"by service, until a revision changes it"`
	}
	suspendBody struct {
		Why string `json:"why,omitempty" maxLength:"1024"`
	}
	approveBody struct {
		Plan string `json:"plan" minLength:"1" maxLength:"255"`
	}
	volumeBody struct {
		Volume string `json:"volume" minLength:"1" maxLength:"512" doc:"STACK/VOLUME"`
		Node   string `json:"node,omitempty" maxLength:"255" doc:"id or hostname; may be left out where only one has it"`
	}
)

func (s *Server) actRoutes(api huma.API) {
	register(s, api, acting("add-source", "/v1/sources", "Watch a repository"), s.addSource)
	register(s, api, acting("sync-source", "/v1/sources/{source}/sync", "Fetch now and wait for the answer"), s.syncSource)
	register(s, api, huma.Operation{
		OperationID: "remove-source", Method: http.MethodDelete, Path: "/v1/sources/{source}",
		Summary: "Stop watching a repository; its stacks keep running", DefaultStatus: http.StatusOK,
	}, s.removeSource)

	register(s, api, acting("approve", "/v1/approve", "Let a plan happen that waits for a person"), s.approve)
	register(s, api, acting("retry", "/v1/stacks/{stack}/retry", "Try a revision again that failed"), s.retry)
	register(s, api, acting("rollback", "/v1/stacks/{stack}/rollback", "Go back to an earlier revision"), s.rollback)
	register(s, api, acting("redeploy", "/v1/stacks/{stack}/redeploy", "Replace tasks of the same revision"), s.redeploy)
	register(s, api, acting("restart", "/v1/stacks/{stack}/restart", "Replace tasks, one after the other"), s.restart)
	register(s, api, acting("scale", "/v1/stacks/{stack}/scale", "Set numbers of replicas"), s.scale)
	register(s, api, acting("suspend", "/v1/stacks/{stack}/suspend", "Roll out nothing new"), s.suspend)
	register(s, api, acting("resume", "/v1/stacks/{stack}/resume", "Follow the repository again"), s.resume)

	register(s, api, acting("release-volume", "/v1/volumes/release", "Let slots leave the node of their volume"), s.releaseVolume)
	register(s, api, acting("remove-volume", "/v1/volumes/remove", "Remove a volume that no stack has"), s.removeVolume)
}

func (s *Server) addSource(ctx context.Context, in *struct{ Body SourceRequest }) (*body[Source], error) {
	r := in.Body
	if _, after, ok := strings.Cut(r.URL, "://"); ok && strings.Contains(strings.SplitN(after, "/", 2)[0], ":") &&
		strings.Contains(strings.SplitN(after, "/", 2)[0], "@") {
		return nil, Invalid("the URL holds a password", "leave it out and give --git-user and --git-token-file")
	}
	id, err := s.Sources.AddSource(ctx, NewSource{
		URL: r.URL, Branch: r.Branch, Path: r.Path, Environment: r.Environment, Approved: r.Approved,
		Poll: time.Duration(r.PollSeconds) * time.Second,
		Credential: swarm.Credential{
			Username: r.Username, Password: r.Password, SSHKey: []byte(r.SSHKey), KnownHosts: []byte(r.KnownHosts),
		},
	}, by(ctx))
	if err != nil {
		return nil, err
	}
	return s.getSource(ctx, &oneSource{Source: string(id)})
}

func (s *Server) syncSource(ctx context.Context, in *oneSource) (*body[Source], error) {
	if _, err := s.getSource(ctx, in); err != nil {
		return nil, err
	}
	if err := s.Sources.SyncSource(ctx, swarm.SourceID(in.Source)); err != nil {
		return nil, err
	}
	return s.getSource(ctx, in)
}

func (s *Server) removeSource(ctx context.Context, in *oneSource) (*body[Done], error) {
	if _, err := s.getSource(ctx, in); err != nil {
		return nil, err
	}
	if err := s.Sources.RemoveSource(ctx, swarm.SourceID(in.Source), by(ctx)); err != nil {
		return nil, err
	}
	return answer(Done{Text: fmt.Sprintf("source %s is no longer watched; its stacks keep running", in.Source)})
}

func (s *Server) approve(ctx context.Context, in *struct{ Body approveBody }) (*body[Done], error) {
	stacks, err := s.Rollouts.Approve(ctx, in.Body.Plan, by(ctx))
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, stack := range stacks {
		names = append(names, string(stack))
	}
	return answer(Done{Text: fmt.Sprintf("plan %s approved: %s", in.Body.Plan, strings.Join(names, ", ")), Stacks: names})
}

// known answers 404 for a stack or service that is not there, so that the
// manager need not.
func (s *Server) known(ctx context.Context, name string, services ...string) (swarm.StackName, error) {
	stack := swarm.StackName(name)
	shot := s.snapshot(ctx, stack)
	record, ok := shot.record(stack)
	if !ok {
		return "", shot.noStack(stack)
	}
	content, _ := shot.content(target(record))
	for _, service := range services {
		if _, ok := content.Service(service); !ok {
			return "", NotFound(fmt.Sprintf("stack %s has no service %q", name, service), "gitswarm status "+name+" lists them")
		}
	}
	return stack, nil
}

// onKnown carries out an act on a stack and says what was done.
func (s *Server) onKnown(ctx context.Context, name string, services []string, text string, act func(swarm.StackName) error) (*body[Done], error) {
	stack, err := s.known(ctx, name, services...)
	if err != nil {
		return nil, err
	}
	if err := act(stack); err != nil {
		return nil, err
	}
	return answer(Done{Text: text, Stacks: []string{name}})
}

func (s *Server) retry(ctx context.Context, in *oneStack) (*body[Done], error) {
	return s.onKnown(ctx, in.Stack, nil, fmt.Sprintf("the newest revision of %s is tried again", in.Stack),
		func(stack swarm.StackName) error { return s.Rollouts.Retry(ctx, stack, by(ctx)) })
}

func (s *Server) rollback(ctx context.Context, in *onStack[rollbackBody]) (*body[Done], error) {
	var to swarm.Revision
	if in.Body.To != "" {
		record, ok := s.View().Stack(swarm.StackName(in.Stack))
		rendered, found := revisionOf(record, in.Body.To)
		if ok && !found {
			return nil, NotFound(fmt.Sprintf("stack %s has no revision %q", in.Stack, in.Body.To),
				fmt.Sprintf("gitswarm history %s lists those that are kept", in.Stack))
		}
		to = rendered.Revision
	}
	done, err := s.onKnown(ctx, in.Stack, nil, "", func(stack swarm.StackName) (err error) {
		to, err = s.Rollouts.Rollback(ctx, stack, to, by(ctx))
		return err
	})
	if err != nil {
		return nil, err
	}
	done.Body.Revision = string(to)
	done.Body.Text = fmt.Sprintf("%s goes back to %s; the newer content is quarantined", in.Stack, to.Short())
	return done, nil
}

func (s *Server) redeploy(ctx context.Context, in *onStack[redeployBody]) (*body[Done], error) {
	return s.onKnown(ctx, in.Stack, in.Body.Services, servicesText(in.Stack, in.Body.Services)+" redeployed",
		func(stack swarm.StackName) error {
			return s.Rollouts.Redeploy(ctx, stack, in.Body.Services, in.Body.Pull, by(ctx))
		})
}

func (s *Server) restart(ctx context.Context, in *onStack[someServices]) (*body[Done], error) {
	return s.onKnown(ctx, in.Stack, in.Body.Services, servicesText(in.Stack, in.Body.Services)+" restarted one replica at a time",
		func(stack swarm.StackName) error {
			return s.Stacks.Restart(ctx, stack, in.Body.Services, by(ctx))
		})
}

func servicesText(stack string, services []string) string {
	if len(services) == 0 {
		return stack + " is"
	}
	return stack + "/" + strings.Join(services, ", "+stack+"/") + " is"
}

// maxReplicas is the limit that compose files have, too.
const maxReplicas = 10_000

func (s *Server) scale(ctx context.Context, in *onStack[scaleBody]) (*body[Done], error) {
	var services []string
	for service, replicas := range in.Body.Replicas {
		if replicas < 0 || replicas > maxReplicas {
			return nil, Invalid(fmt.Sprintf("%d replicas of %s", replicas, service), fmt.Sprintf("give a number from 0 to %d", maxReplicas))
		}
		services = append(services, service)
	}
	return s.onKnown(ctx, in.Stack, services, in.Stack+" is scaled until a revision changes the service",
		func(stack swarm.StackName) error {
			return s.Stacks.Scale(ctx, stack, in.Body.Replicas, by(ctx))
		})
}

func (s *Server) suspend(ctx context.Context, in *onStack[suspendBody]) (*body[Done], error) {
	why := in.Body.Why
	if why == "" {
		why = "by " + by(ctx)
	}
	return s.onKnown(ctx, in.Stack, nil, fmt.Sprintf("%s is suspended: nothing new is rolled out until gitswarm resume %s", in.Stack, in.Stack),
		func(stack swarm.StackName) error { return s.Stacks.Suspend(ctx, stack, why, by(ctx)) })
}

func (s *Server) resume(ctx context.Context, in *oneStack) (*body[Done], error) {
	return s.onKnown(ctx, in.Stack, nil, in.Stack+" follows its repository again",
		func(stack swarm.StackName) error { return s.Stacks.Resume(ctx, stack, by(ctx)) })
}

func (s *Server) releaseVolume(ctx context.Context, in *struct{ Body volumeBody }) (*body[Done], error) {
	volume, err := s.volume(in.Body)
	if err != nil {
		return nil, err
	}
	if err := s.Volumes.ReleaseVolume(ctx, volume.ID, volume.Node, by(ctx)); err != nil {
		return nil, err
	}
	return answer(Done{Text: fmt.Sprintf("volume %s is released: its slots may start elsewhere, without the data on %s", volume.ID, volume.Node)})
}

func (s *Server) removeVolume(ctx context.Context, in *struct{ Body volumeBody }) (*body[Done], error) {
	volume, err := s.volume(in.Body)
	if err != nil {
		return nil, err
	}
	if volume.Orphan.IsZero() {
		return nil, Conflict(fmt.Sprintf("volume %s belongs to stack %s", volume.ID, swarm.ServiceID(volume.ID).Stack()),
			"remove it from the compose file first; a volume can be removed once its stack is gone")
	}
	if err := s.Volumes.RemoveVolume(ctx, volume.ID, volume.Node, by(ctx)); err != nil {
		return nil, err
	}
	return answer(Done{Text: fmt.Sprintf("volume %s is removed from %s", volume.ID, volume.Node)})
}

// volume finds the one volume that a request names.
func (s *Server) volume(request volumeBody) (swarm.KeptVolume, error) {
	view := s.View()
	shot := Snapshot{Nodes: view.Nodes()}
	var found []swarm.KeptVolume
	for _, volume := range view.Volumes() {
		onNode := request.Node == "" || request.Node == string(volume.Node) || request.Node == shot.hostname(volume.Node)
		if string(volume.ID) == request.Volume && onNode {
			found = append(found, volume)
		}
	}
	switch len(found) {
	case 0:
		return swarm.KeptVolume{}, NotFound(fmt.Sprintf("no volume %q", request.Volume), "gitswarm volume ls lists them")
	case 1:
		return found[0], nil
	}
	return swarm.KeptVolume{}, Conflict(fmt.Sprintf("%d nodes have a volume %s", len(found), request.Volume), "name one with --node")
}
