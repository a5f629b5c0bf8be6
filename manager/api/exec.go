package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gitswarm/gitswarm/swarm"
)

// ExecRequest asks for a process in a running task.
type ExecRequest struct {
	Target     string   `json:"target" minLength:"1" maxLength:"512" doc:"STACK/SERVICE, STACK/SERVICE.SLOT or a task's id; the first healthy replica is taken"`
	Args       []string `json:"args" minItems:"1" maxItems:"1024"`
	Env        []string `json:"env,omitempty" maxItems:"1024" doc:"K=V"`
	User       string   `json:"user,omitempty" maxLength:"255"`
	WorkingDir string   `json:"workingDir,omitempty" maxLength:"4096"`
	TTY        bool     `json:"tty,omitempty"`
	Stdin      bool     `json:"stdin,omitempty"`
	Rows       uint16   `json:"rows,omitempty"`
	Cols       uint16   `json:"cols,omitempty"`
}

// execRoute adds the one route that leaves HTTP.
func (s *Server) execRoute(mux *http.ServeMux, api huma.API) {
	schemas := api.OpenAPI().Components.Schemas
	problem := map[string]*huma.MediaType{
		"application/problem+json": {Schema: huma.SchemaFromType(schemas, typeOf(Failure{}))},
	}
	api.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "exec", Method: http.MethodPost, Path: "/v1/exec", Summary: "Run a process in a task",
		Description: "Send `Connection: Upgrade` and `Upgrade: " + ExecProtocol + "`. After the answer 101 both sides send frames: one byte kind, " +
			"four bytes length (big-endian), content. Kinds to the process: 1 stdin, 2 end of stdin, 3 terminal size (rows, columns: two bytes each). " +
			"From it: 4 stdout, 5 stderr, 6 exit code (four bytes), 7 failure (problem in JSON).",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/json": {Schema: huma.SchemaFromType(schemas, typeOf(ExecRequest{}))},
		}},
		Responses: map[string]*huma.Response{
			"101":     {Description: "frames follow"},
			"default": {Description: "error", Content: problem},
		},
	})
	mux.HandleFunc("POST /v1/exec", s.exec)
}

func typeOf(value any) reflect.Type { return reflect.TypeOf(value) }

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	request, err := s.execRequest(w, r)
	if err != nil {
		refuse(w, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	process, err := s.Streams.Exec(ctx, request)
	if err != nil {
		refuse(w, err)
		return
	}
	defer process.Close()

	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, fmt.Errorf("upgrade connection: %w", err))
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Time{}) // a conversation may be silent for hours
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", ExecProtocol)
	converse(ctx, conn, NewFrames(buffered, conn), process)
}

func refuse(w http.ResponseWriter, err error) {
	failed := failure(err, http.StatusConflict)
	w.Header().Set("Content-Type", failed.ContentType(""))
	w.WriteHeader(failed.Status)
	_ = json.NewEncoder(w).Encode(failed) // a client that is gone needs no answer
}

func (s *Server) execRequest(w http.ResponseWriter, r *http.Request) (swarm.ExecRequest, error) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), ExecProtocol) {
		return swarm.ExecRequest{}, Fail(http.StatusUpgradeRequired, "exec needs an upgrade of the connection",
			"send Connection: Upgrade and Upgrade: "+ExecProtocol)
	}
	var in ExecRequest
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return swarm.ExecRequest{}, Fail(http.StatusRequestEntityTooLarge, "the request is larger than 1 MiB", "send long input to the process's stdin")
		}
		return swarm.ExecRequest{}, Invalid("read request: "+err.Error(), "GET /openapi.json describes it")
	}
	if len(in.Args) == 0 || in.Args[0] == "" {
		return swarm.ExecRequest{}, Invalid("no command was given", "gitswarm exec STACK/SERVICE -- COMMAND")
	}

	task, err := s.execTask(r.Context(), in.Target)
	if err != nil {
		return swarm.ExecRequest{}, err
	}
	return swarm.ExecRequest{
		Task: task, Args: in.Args, Env: in.Env, User: in.User, WorkingDir: in.WorkingDir,
		TTY: in.TTY, Stdin: in.Stdin, Rows: in.Rows, Cols: in.Cols,
	}, nil
}

// execTask chooses the running task that a target names: a healthy one before
// one that starts, the newest of equals.
func (s *Server) execTask(ctx context.Context, target string) (swarm.TaskID, error) {
	shot, err := s.snapshotOf(ctx, target)
	if err != nil {
		return "", err
	}
	tasks, err := shot.tasksOf(target)
	if err != nil {
		return "", err
	}
	var best *swarm.Task
	for i, task := range tasks {
		if !task.Status.State.Running() {
			continue
		}
		if best == nil || task.Status.State > best.Status.State ||
			(task.Status.State == best.Status.State && task.Desired < best.Desired) {
			best = &tasks[i]
		}
	}
	if best == nil {
		return "", Conflict(fmt.Sprintf("no task of %s runs", target), "gitswarm ps --all "+target+" shows why")
	}
	return best.ID, nil
}

// converse carries frames both ways until the process has exited or the client
// is gone.
func converse(ctx context.Context, conn net.Conn, frames *Frames, process Conversation) {
	gone := context.AfterFunc(ctx, func() { conn.Close() })
	defer gone()
	go func() {
		defer process.Close() // no client, no process
		for {
			frame, err := frames.Read()
			if err != nil || process.Send(frame) != nil {
				return
			}
		}
	}()

	for {
		frame, err := process.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = frames.Fail(err) // the client may be gone, too
			}
			return
		}
		if frames.Write(frame) != nil || frame.Exit != nil {
			return
		}
	}
}
