package api

import "time"

// Runtime is how a stack runs, whatever git says.
type Runtime string

// The runtimes of a stack or service.
const (
	RuntimeHealthy  Runtime = "healthy"  // every wanted replica is healthy
	RuntimeDegraded Runtime = "degraded" // some are not
	RuntimeDown     Runtime = "down"     // none is
	RuntimeUnknown  Runtime = "unknown"  // its nodes have not answered, or nothing was ever accepted
)

// Sync is how what runs relates to what git says.
type Sync string

// The syncs of a stack.
const (
	Synced     Sync = "synced"
	Rolling    Sync = "rolling"
	RolledBack Sync = "rolled-back" // the newest commit failed: the last healthy revision runs
	Refused    Sync = "refused"     // the newest commit is not a stack, or policy denies it
	Waiting    Sync = "waiting"     // for an approval, or for what is missing
	Suspended  Sync = "suspended"
	Stale      Sync = "stale" // the repository does not answer
	Failed     Sync = "failed"
	Paused     Sync = "paused"
)

// Status is the page of `gitswarm status`.
type Status struct {
	Now      time.Time `json:"now"`
	Index    uint64    `json:"index" doc:"raft index that the page shows"`
	Healthy  Count     `json:"healthy" doc:"stacks"`
	Managers Count     `json:"managers"`
	Nodes    Count     `json:"nodes"`
	Sources  []Source  `json:"sources"`
	Problems []Problem `json:"problems" doc:"worst first"`
	Stacks   []Stack   `json:"stacks" doc:"by name"`

	Machine    *Place      `json:"machine,omitempty" doc:"only where this machine is no manager: the rest is empty then"`
	Leaderless *Leaderless `json:"leaderless,omitempty" doc:"only while no manager leads: the page is stale then"`
}

// Count is how many of how many are well.
type Count struct {
	Well int `json:"well"`
	Of   int `json:"of"`
}

// Full reports whether none is missing.
func (c Count) Full() bool { return c.Well >= c.Of }

// Problem is one line of the page's top: what is wrong, and what to type.
type Problem struct {
	Kind    string `json:"kind" enum:"NODE,GIT,FAIL,DENY,DOWN,ASK,WAIT,HOLD,ROLL"`
	Subject string `json:"subject" doc:"a stack, node or source"`
	Text    string `json:"text"`
	Command string `json:"command,omitempty" doc:"what to type next"`
}

// Stack is a stack as people see it.
type Stack struct {
	Name      string        `json:"name"`
	Source    string        `json:"source"`
	Path      string        `json:"path,omitempty"`
	Runtime   Runtime       `json:"runtime"`
	Sync      Sync          `json:"sync"`
	Revision  string        `json:"revision,omitempty" doc:"what runs, or is being rolled out"`
	Head      string        `json:"head,omitempty" doc:"the newest commit that touched the stack"`
	Accepted  string        `json:"accepted,omitempty"`
	Running   string        `json:"running,omitempty" doc:"the last revision that was wholly healthy"`
	Why       string        `json:"why,omitempty" doc:"why head, accepted and running differ"`
	Services  []Service     `json:"services"`
	Working   Count         `json:"working" doc:"services"`
	Replicas  Count         `json:"replicas"`
	Rollout   *Rollout      `json:"rollout,omitempty" doc:"the current one, or the last"`
	Problem   *StackProblem `json:"problem,omitempty" doc:"why the newest commit is not rolled out"`
	Suspended string        `json:"suspended,omitempty"`
	Removing  bool          `json:"removing,omitempty"`
	Warnings  []Finding     `json:"warnings,omitempty"`
}

// Service is a service as people see it.
type Service struct {
	ID       string   `json:"id"`
	Mode     string   `json:"mode"`
	Image    string   `json:"image"`
	Manifest string   `json:"manifest,omitempty"`
	Runtime  Runtime  `json:"runtime"`
	Replicas Count    `json:"replicas"`
	Current  Count    `json:"current" doc:"replicas that run the wanted spec and are healthy"`
	Ports    []string `json:"ports,omitempty"`
	Scaled   bool     `json:"scaled,omitempty" doc:"an operator set the number of replicas"`
	Message  string   `json:"message,omitempty" doc:"why replicas are missing"`
}

// Rollout is a rollout that goes on or is over.
type Rollout struct {
	ID       uint64     `json:"id"`
	Phase    string     `json:"phase"`
	Revision string     `json:"revision"`
	From     string     `json:"from,omitempty"`
	Author   string     `json:"author,omitempty"`
	Subject  string     `json:"subject,omitempty"`
	Operator string     `json:"operator,omitempty" doc:"who asked for it, if not a commit"`
	Began    time.Time  `json:"began"`
	Over     *time.Time `json:"over,omitempty"`
	Deadline *time.Time `json:"deadline,omitempty" doc:"when the next replica must be healthy"`
	Why      string     `json:"why,omitempty"`
	FailedBy string     `json:"failedBy,omitempty"`
}

// StackProblem is why the newest commit of a stack is not rolled out.
type StackProblem struct {
	Kind     string    `json:"kind"`
	Text     string    `json:"text"`
	Since    time.Time `json:"since"`
	Plan     string    `json:"plan,omitempty" doc:"what approve takes"`
	Findings []Finding `json:"findings,omitempty"`
}

// Finding is one thing to say about a compose file.
type Finding struct {
	Rule    string `json:"rule"`
	Class   string `json:"class"`
	Service string `json:"service,omitempty"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Text    string `json:"text"`
}

// Task is a task as `gitswarm ps` shows it.
type Task struct {
	ID       string     `json:"id"`
	Service  string     `json:"service"`
	Slot     int        `json:"slot,omitempty"`
	Node     string     `json:"node,omitempty"`
	Hostname string     `json:"hostname,omitempty" doc:"of its node"`
	State    string     `json:"state"`
	Desired  string     `json:"desired"`
	Revision string     `json:"revision"`
	Spec     string     `json:"spec"`
	Image    string     `json:"image,omitempty"`
	Since    time.Time  `json:"since"`
	Created  time.Time  `json:"created"`
	Started  *time.Time `json:"started,omitempty"`
	Exit     *int       `json:"exit,omitempty"`
	Message  string     `json:"message,omitempty"`
	Excused  string     `json:"excused,omitempty"`
	Pulled   int        `json:"pulled,omitempty" doc:"percent"`
	OOM      bool       `json:"oom,omitempty"`
	Replaces string     `json:"replaces,omitempty"`
	IPs      []string   `json:"ips,omitempty"`
}

// Node is a machine as people see it.
type Node struct {
	ID           string            `json:"id"`
	Hostname     string            `json:"hostname"`
	Role         string            `json:"role"`
	State        string            `json:"state"`
	Availability string            `json:"availability"`
	Since        time.Time         `json:"since"`
	Joined       time.Time         `json:"joined"`
	OS           string            `json:"os"`
	Arch         string            `json:"arch"`
	NanoCPUs     int64             `json:"nanoCPUs"`
	Memory       int64             `json:"memory" doc:"bytes"`
	Build        string            `json:"build,omitempty"`
	Address      string            `json:"address,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	EngineLabels map[string]string `json:"engineLabels,omitempty" doc:"that its daemon has"`
	Generic      []string          `json:"generic,omitempty" doc:"resources of its own kinds, as gpu=2"`
	DataPath     string            `json:"dataPath,omitempty" doc:"address for containers' traffic"`
	Leader       bool              `json:"leader,omitempty" doc:"of the managers"`
	Tasks        int               `json:"tasks" doc:"that it runs"`
}

// Source is a watched repository as people see it.
type Source struct {
	ID          string    `json:"id"`
	URL         string    `json:"url"`
	Branch      string    `json:"branch,omitempty"`
	Path        string    `json:"path,omitempty"`
	Environment string    `json:"environment,omitempty"`
	Head        string    `json:"head,omitempty"`
	Seen        time.Time `json:"seen" doc:"when it last answered"`
	Problem     string    `json:"problem,omitempty"`
	Since       time.Time `json:"since" doc:"when the problem began"`
	Approved    bool      `json:"approved"`
	Suspended   string    `json:"suspended,omitempty"`
	Credential  bool      `json:"credential" doc:"one is kept; it is never shown"`
	Poll        string    `json:"poll,omitempty"`
	Stacks      []string  `json:"stacks"`
	Created     time.Time `json:"created"`
}

// Volume is a named volume on a node.
type Volume struct {
	ID       string     `json:"id"`
	Node     string     `json:"node"`
	Hostname string     `json:"hostname,omitempty"`
	Created  time.Time  `json:"created"`
	Orphan   *time.Time `json:"orphan,omitempty" doc:"when its stack went"`
	Removal  *time.Time `json:"removal,omitempty" doc:"when it will be removed"`
	Dropped  *time.Time `json:"dropped,omitempty" doc:"when it was given up; its node is removing it"`
	Pins     []string   `json:"pins,omitempty" doc:"slots that it keeps on its node"`
}

// Event is one thing that happened.
type Event struct {
	Index    uint64    `json:"index"`
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"`
	Stack    string    `json:"stack,omitempty"`
	Service  string    `json:"service,omitempty"`
	Slot     int       `json:"slot,omitempty"`
	Task     string    `json:"task,omitempty"`
	Node     string    `json:"node,omitempty"`
	Revision string    `json:"revision,omitempty"`
	Text     string    `json:"text"`
}

// LogLine is one line that a task wrote.
type LogLine struct {
	Task   string    `json:"task"`
	At     time.Time `json:"at"`
	Stderr bool      `json:"stderr,omitempty"`
	Text   string    `json:"text"`
}

// Usage is what a running task consumes.
type Usage struct {
	Task        string    `json:"task"`
	Node        string    `json:"node,omitempty"`
	At          time.Time `json:"at"`
	CPUSeconds  float64   `json:"cpuSeconds" doc:"used since it started"`
	Memory      int64     `json:"memory" doc:"bytes"`
	MemoryLimit int64     `json:"memoryLimit,omitempty" doc:"bytes; 0 means none"`
	Pids        int64     `json:"pids"`
	Received    int64     `json:"received" doc:"bytes"`
	Sent        int64     `json:"sent" doc:"bytes"`
}

// Plan is what a revision would change.
type Plan struct {
	Revision string         `json:"revision,omitempty"`
	Stacks   []PlannedStack `json:"stacks" doc:"by name; those that would change or cannot"`
	Changes  int            `json:"changes"`
}

// PlannedStack is one stack of a Plan.
type PlannedStack struct {
	Name     string        `json:"name"`
	Steps    []Step        `json:"steps"`
	Problem  *StackProblem `json:"problem,omitempty" doc:"why it would not be rolled out"`
	Findings []Finding     `json:"findings,omitempty"`
}

// Step is one change of a Plan.
type Step struct {
	Verb   string `json:"verb"`
	Target string `json:"target"`
	Node   string `json:"node,omitempty" doc:"where the scheduler puts it"`
	Why    string `json:"why"`
}

// Grant is an operator's leave for a stack to do what policy refuses.
type Grant struct {
	Stack   string `json:"stack"`
	Service string `json:"service,omitempty"`
	Rule    string `json:"rule"`
	Value   string `json:"value,omitempty"`
}

// Version is which build answers.
type Version struct {
	Version string `json:"version"`
	Build   string `json:"build,omitempty"`
	Go      string `json:"go"`
	Level   int    `json:"level,omitempty" doc:"of the log's commands: what this build understands"`
	API     string `json:"api"`
	Cluster string `json:"cluster,omitempty"`
	Node    string `json:"node,omitempty"`
}
