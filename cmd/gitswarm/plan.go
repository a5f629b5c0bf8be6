package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/manager/api"
)

// maxPlanTree bounds a folder that is planned.
const maxPlanTree = 60 << 20

func (a *app) planCommand() *cobra.Command {
	var exitCode bool
	var source, stack, environment string
	cmd := &cobra.Command{
		Use:   "plan [PATH|REF]",
		Short: "Show what a commit or folder would change",
		Long: "Show what the newest commit, another commit or a folder would change, by the real scheduler.\n" +
			"Exit code 0 unless it fails; with --exit-code 0 for nothing, 1 for changes, 2 for an error.",
		Example: "  gitswarm plan\n  gitswarm plan feature/resize\n  gitswarm plan . --exit-code",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			plan, err := a.plan(cmd.Context(), append(args, "")[0], url.Values{
				"source": {source}, "stack": {stack}, "environment": {environment},
			})
			if err == nil {
				err = a.show(plan, func(bool) { a.writePlan(plan) })
			}
			switch {
			case err != nil && exitCode:
				return &exitError{code: 2, err: err}
			case err == nil && exitCode && (plan.Changes > 0 || cannot(plan)):
				return &exitError{code: 1}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "say by the exit code whether there are changes")
	cmd.Flags().StringVar(&source, "source", "", "source to plan")
	cmd.Flags().StringVar(&stack, "stack", "", "stack to plan")
	cmd.Flags().StringVar(&environment, "environment", "", "environment of gitswarm.yaml, for a folder")
	return a.listFlags(cmd)
}

// cannot reports whether a stack of the plan would not be rolled out.
func cannot(plan api.Plan) bool {
	for _, stack := range plan.Stacks {
		if stack.Problem != nil {
			return true
		}
	}
	return false
}

// plan asks for the plan of a folder if there is one of that name, and of a
// commit otherwise.
func (a *app) plan(ctx context.Context, what string, query url.Values) (api.Plan, error) {
	var plan api.Plan
	client, err := a.client()
	if err != nil {
		return plan, err
	}
	for name := range query {
		if query.Get(name) == "" {
			query.Del(name)
		}
	}

	info, err := os.Stat(what)
	isPath := err == nil && info.IsDir()
	switch {
	case isPath:
		query.Del("source")
		archive, err := pack(what)
		if err != nil {
			return plan, err
		}
		return plan, client.call(ctx, http.MethodPost, "/v1/plan/tree", query, archive, "application/x-tar", &plan)
	case strings.HasPrefix(what, ".") || strings.HasPrefix(what, "/"):
		return plan, fmt.Errorf("plan %s: it is no folder; give the folder that holds the stacks, or a branch, tag or commit", what)
	}
	query.Del("environment")
	if what != "" {
		query.Set("ref", what)
	}
	return plan, client.call(ctx, http.MethodPost, "/v1/plan", query, nil, "", &plan)
}

// pack archives a folder without its git folder.
func pack(dir string) (*bytes.Buffer, error) {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == ".git" {
			return filepath.SkipDir
		}
		return packEntry(writer, dir, name, entry, &archive)
	})
	if err := errors.Join(err, writer.Close()); err != nil {
		return nil, fmt.Errorf("pack folder %s: %w", dir, err)
	}
	return &archive, nil
}

func packEntry(writer *tar.Writer, dir, name string, entry fs.DirEntry, archive *bytes.Buffer) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(name); err != nil {
			return err
		}
	}
	if !info.Mode().IsRegular() && !info.IsDir() && link == "" {
		return nil // sockets and devices are of no stack
	}
	if int64(archive.Len())+info.Size() > maxPlanTree {
		return fmt.Errorf("it is larger than %d MiB; plan the stack's own folder", maxPlanTree>>20)
	}

	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	relative, err := filepath.Rel(dir, name)
	if err != nil {
		return err
	}
	header.Name = filepath.ToSlash(relative)
	if err := writer.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(writer, file)
	return err
}

// writePlan prints one step a line, below its stack.
func (a *app) writePlan(plan api.Plan) {
	where := "the folder"
	if plan.Revision != "" {
		where = short(plan.Revision)
	}
	held := 0
	for _, stack := range plan.Stacks {
		if stack.Problem != nil {
			held++
		}
	}
	switch {
	case held > 0:
		fmt.Fprintf(a.stdout, "%s makes %s; %s cannot be rolled out now\n", where, counted(plan.Changes, "change"), counted(held, "stack"))
	case plan.Changes == 0:
		fmt.Fprintf(a.stdout, "%s changes nothing\n", where)
	default:
		fmt.Fprintf(a.stdout, "%s makes %s\n", where, counted(plan.Changes, "change"))
	}

	for _, stack := range plan.Stacks {
		if len(stack.Steps) == 0 && stack.Problem == nil && len(stack.Findings) == 0 {
			continue
		}
		fmt.Fprintf(a.stdout, "\n%s\n", a.paint.bold(stack.Name))
		if stack.Problem != nil {
			fmt.Fprintf(a.stdout, "  %s %s\n", a.paint.red(stack.Problem.Kind+":"), stack.Problem.Text)
			a.writeFindings(a.stdout, stack.Problem.Findings)
		}
		a.writeFindings(a.stdout, stack.Findings)
		a.writeSteps(stack.Steps)
	}
}

func (a *app) writeSteps(steps []api.Step) {
	verbs, targets := 0, 0
	for _, step := range steps {
		verbs, targets = max(verbs, len(step.Verb)), max(targets, len(step.Target))
	}
	for _, step := range steps {
		node := ""
		if step.Node != "" {
			node = "on " + step.Node + ": "
		}
		verb := fmt.Sprintf("%-*s", verbs, step.Verb)
		switch step.Verb {
		case "start":
			verb = a.paint.green(verb)
		case "stop", "remove":
			verb = a.paint.red(verb)
		default:
			verb = a.paint.yellow(verb)
		}
		fmt.Fprintf(a.stdout, "  %s  %-*s  %s%s\n", verb, targets, step.Target, node, step.Why)
	}
}
