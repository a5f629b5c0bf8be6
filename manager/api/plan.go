package api

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gitswarm/gitswarm/swarm"
)

// Limits on an uploaded tree.
const (
	maxTreeBytes = 64 << 20
	maxTreeFiles = 20_000
	treeTimeout  = time.Minute
)

type planQuery struct {
	Source string `query:"source" maxLength:"255" doc:"every source unless set"`
	Ref    string `query:"ref" maxLength:"255" doc:"branch, tag or commit; the newest commit that was read unless set"`
	Stack  string `query:"stack" maxLength:"255"`
}

type treeQuery struct {
	Environment string `query:"environment" maxLength:"255" doc:"of gitswarm.yaml"`
	Stack       string `query:"stack" maxLength:"255"`
	RawBody     []byte `contentType:"application/x-tar"`
}

func (s *Server) planRoutes(api huma.API) {
	register(s, api, acting("plan", "/v1/plan", "What a commit would change, by the real scheduler"), s.planCommit)

	tree := acting("plan-tree", "/v1/plan/tree", "What a folder would change: its files as a tar archive")
	tree.MaxBodyBytes = maxTreeBytes
	tree.BodyReadTimeout = treeTimeout
	register(s, api, tree, s.planTree)
}

func (s *Server) planCommit(ctx context.Context, in *planQuery) (*body[Plan], error) {
	who := callerOf(ctx)
	if in.Source == "" {
		in.Source = string(who.Source)
	}
	if !who.mine(swarm.SourceID(in.Source)) {
		return nil, Fail(http.StatusForbidden, fmt.Sprintf("the token %s is for source %s alone", who.Name, who.Source), "leave --source out")
	}
	result, err := s.Planner.Plan(ctx, PlanRequest{
		Source: swarm.SourceID(in.Source), Ref: in.Ref, Stack: swarm.StackName(in.Stack),
	})
	if err != nil {
		return nil, err
	}
	return answer(planOf(result))
}

func (s *Server) planTree(ctx context.Context, in *treeQuery) (*body[Plan], error) {
	if s.Scratch != "" {
		if err := os.MkdirAll(s.Scratch, 0o700); err != nil {
			return nil, fmt.Errorf("make folder for plan: %w", err)
		}
	}
	dir, err := os.MkdirTemp(s.Scratch, "gitswarm-plan-")
	if err != nil {
		return nil, fmt.Errorf("make folder for plan: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := unpack(dir, bytes.NewReader(in.RawBody)); err != nil {
		return nil, err
	}

	result, err := s.Planner.Plan(ctx, PlanRequest{
		Dir: dir, Environment: in.Environment, Stack: swarm.StackName(in.Stack),
	})
	if err != nil {
		return nil, err
	}
	who, view := callerOf(ctx), s.View()
	result.Stacks = slices.DeleteFunc(result.Stacks, func(plan StackPlan) bool { // names of another source's
		record, ok := view.Stack(plan.Name)
		return ok && !who.mine(record.Source)
	})
	return answer(planOf(result))
}

// unpack writes an archive's folders, regular files and links below dir.
// Nothing is written through a link, so nothing lands outside.
func unpack(dir string, archive io.Reader) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open folder for plan: %w", err)
	}
	defer root.Close()

	reader := tar.NewReader(archive)
	left := int64(maxTreeBytes)
	for files := 0; ; files++ {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return Invalid("read archive: "+err.Error(), "send the folder as an uncompressed tar archive")
		}
		if files >= maxTreeFiles || header.Size > left {
			return Fail(http.StatusRequestEntityTooLarge, fmt.Sprintf("the folder is larger than %d files or %d MiB", maxTreeFiles, maxTreeBytes>>20),
				"plan the stack's own folder, or commit it and plan the commit")
		}
		left -= header.Size
		if err := unpackEntry(root, header, reader); err != nil {
			return Invalid(fmt.Sprintf("unpack %q: %v", header.Name, err), "send regular files, folders and symbolic links alone")
		}
	}
}

func unpackEntry(root *os.Root, header *tar.Header, content io.Reader) error {
	name := path.Clean(header.Name)
	if name == "." {
		return nil
	}
	if parent := path.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o700); err != nil {
			return err
		}
	}

	switch header.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o700)
	case tar.TypeSymlink:
		return root.Symlink(header.Linkname, name)
	case tar.TypeReg:
		file, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, content)
		return errors.Join(err, file.Close())
	}
	return fmt.Errorf("entries of type %q are not taken", header.Typeflag)
}
