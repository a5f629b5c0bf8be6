package policy_test

import (
	"strings"
	"testing"

	"github.com/gitswarm/gitswarm/policy"
	"github.com/gitswarm/gitswarm/swarm"
)

func judge(t *testing.T, service swarm.Service, grants ...swarm.Grant) swarm.Verdict {
	t.Helper()
	rules, err := policy.Compile(policy.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	stack := swarm.Stack{Name: "shop", Services: []swarm.Service{service}}
	verdict, err := rules.Judge(stack, grants, func(_, key string) (string, int) { return "shop/compose.yaml", len(key) })
	if err != nil {
		t.Fatal(err)
	}
	return verdict
}

func bind(source string) swarm.TaskSpec {
	return swarm.TaskSpec{Mounts: []swarm.Mount{{Kind: swarm.MountBind, Source: source, Target: "/x"}}}
}

func TestBuiltinRulesRefuseWhatReachesTheNode(t *testing.T) {
	for _, c := range []struct {
		rule string
		spec swarm.TaskSpec
	}{
		{"privileged", swarm.TaskSpec{Privileged: true}},
		{"host-namespace", swarm.TaskSpec{HostPID: true}},
		{"host-namespace", swarm.TaskSpec{HostIPC: true}},
		{"host-namespace", swarm.TaskSpec{HostNet: true}},
		{"runtime-socket", bind("/var/run/docker.sock")},
		{"runtime-socket", bind("/run/containerd/containerd.sock")},
		{"runtime-socket", bind("/run/gitswarm/gitswarm.sock")},
		{"runtime-socket", bind("/run/gitswarm/agents.sock")},
		{"runtime-socket", bind("/run/user/1000/docker.sock")},
		{"sensitive-bind", bind("/")},
		{"sensitive-bind", bind("/srv/../etc/shadow")},
		{"sensitive-bind", bind("//etc")},
		{"sensitive-bind", bind("/var/spool/cron")},
		{"sensitive-bind", bind("/etc/passwd")},
		{"sensitive-bind", bind("/var/run")},
		{"sensitive-bind", bind("/var/lib/gitswarm/raft")},
		{"sensitive-bind", bind("/proc")},
		{"bind-propagation", swarm.TaskSpec{Mounts: []swarm.Mount{{Kind: swarm.MountBind, Source: "/srv", Propagation: "rshared"}}}},
		{"capability", swarm.TaskSpec{CapAdd: []string{"SYS_ADMIN"}}},
		{"capability", swarm.TaskSpec{CapAdd: []string{"ALL"}}},
		{"device", swarm.TaskSpec{Devices: []swarm.Device{{Source: "/dev/sda1"}}}},
		{"device", swarm.TaskSpec{Devices: []swarm.Device{{Source: "/dev/net/../mmcblk0"}}}},
	} {
		verdict := judge(t, swarm.Service{Name: "web", Task: c.spec})
		if verdict.Answer != swarm.Deny || len(verdict.Violations) != 1 {
			t.Errorf("%s: verdict is %+v, want one violation", c.rule, verdict)
			continue
		}
		v := verdict.Violations[0]
		if v.Rule != c.rule || v.Service != "web" || v.File != "shop/compose.yaml" || v.Line == 0 || !strings.Contains(v.Text, "allow: [{stack: shop, service: web, rule: "+c.rule) {
			t.Errorf("%s: violation is %+v, want rule, service, file, line and remedy", c.rule, v)
		}
	}
}

func TestBuiltinRulesAllowOrdinaryServices(t *testing.T) {
	spec := bind("/srv/data")
	spec.CapAdd = []string{"NET_BIND_SERVICE", "CHOWN"}
	spec.Devices = []swarm.Device{{Source: "/dev/fuse"}}
	if verdict := judge(t, swarm.Service{Name: "web", Task: spec}); verdict.Answer != swarm.Allow {
		t.Errorf("verdict is %+v, want allow", verdict)
	}
}

func TestAGrantLiftsExactlyWhatItNames(t *testing.T) {
	web := swarm.Service{Name: "web", Task: swarm.TaskSpec{CapAdd: []string{"NET_ADMIN", "SYS_ADMIN"}}}
	grant := swarm.Grant{Stack: "shop", Service: "web", Rule: "capability", Value: "NET_ADMIN"}

	verdict := judge(t, web, grant)
	if len(verdict.Violations) != 1 || !strings.Contains(verdict.Violations[0].Text, "SYS_ADMIN") {
		t.Errorf("violations are %+v, want SYS_ADMIN alone", verdict.Violations)
	}
	if other := judge(t, web, swarm.Grant{Stack: "blog", Rule: "capability"}); len(other.Violations) != 2 {
		t.Errorf("a grant for another stack left %d violations, want 2", len(other.Violations))
	}
	if all := judge(t, web, swarm.Grant{Stack: "shop", Rule: "capability"}); all.Answer != swarm.Allow {
		t.Errorf("a grant without a value gives %+v, want allow", all)
	}
}

func TestARuleThatIsNotAListOfStringsIsRefused(t *testing.T) {
	if _, err := policy.Compile([]policy.Rule{{Name: "broken", Offend: `service.nam(`}}); err == nil {
		t.Error("a rule with a syntax error compiled")
	}
}

func TestDeletionGuard(t *testing.T) {
	approved := swarm.Source{ID: "main", Approved: true}
	for _, c := range []struct {
		claim string
		d     policy.Deletions
		asks  string
	}{
		{"the first sync only plans", policy.Deletions{}, "first sync"},
		{"nothing removed, nothing asked", policy.Deletions{Source: approved, Moved: true, Left: 3, Existing: 9}, ""},
		{"one small stack of many goes by itself", policy.Deletions{Source: approved, Stacks: []swarm.StackName{"a"}, Services: []swarm.ServiceID{"a/x"}, Left: 9, Existing: 20}, ""},
		{"a stack with volumes", policy.Deletions{Source: approved, Stacks: []swarm.StackName{"a"}, Owning: []swarm.StackName{"a"}, Services: []swarm.ServiceID{"a/x"}, Left: 9, Existing: 20}, "owns volumes"},
		{"the last stack", policy.Deletions{Source: approved, Stacks: []swarm.StackName{"a"}, Services: []swarm.ServiceID{"a/x"}, Existing: 1}, "last stack"},
		{"two stacks", policy.Deletions{Source: approved, Stacks: []swarm.StackName{"a", "b"}, Services: []swarm.ServiceID{"a/x", "b/x"}, Left: 50, Existing: 100}, "2 stacks"},
		{"a second stack within the day", policy.Deletions{Source: approved, Stacks: []swarm.StackName{"b"}, Services: []swarm.ServiceID{"b/x"}, Left: 50, Existing: 100, RecentStacks: 1, RecentServices: 1}, "2 stacks"},
		{"a fifth of the services", policy.Deletions{Source: approved, Services: []swarm.ServiceID{"a/x", "a/y"}, Left: 3, Existing: 10}, "2 of 10 services"},
		{"a fifth, bit by bit within a day", policy.Deletions{Source: approved, Services: []swarm.ServiceID{"a/y"}, Left: 3, Existing: 9, RecentServices: 1}, "2 of 10 services"},
		{"less than a fifth", policy.Deletions{Source: approved, Services: []swarm.ServiceID{"a/x"}, Left: 3, Existing: 10}, ""},
		{"a stack that a new, unreadable one may have been", policy.Deletions{Source: approved, Stacks: []swarm.StackName{"a"}, Unread: []swarm.StackName{"b"}, Services: []swarm.ServiceID{"a/x"}, Left: 9, Existing: 20}, "may be the new name of a"},
		{"anything after the path changed", policy.Deletions{Source: approved, Moved: true, Services: []swarm.ServiceID{"a/x"}, Left: 3, Existing: 100}, "path changed"},
	} {
		verdict := policy.JudgeDeletions(c.d)
		want := swarm.Allow
		if c.asks != "" {
			want = swarm.Ask
		}
		if verdict.Answer != want || !strings.Contains(verdict.Why, c.asks) {
			t.Errorf("%s: verdict is %+v, want %s %q", c.claim, verdict, want, c.asks)
		}
	}
}
