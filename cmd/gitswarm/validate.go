package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/gitswarm/gitswarm/gitsync/compose"
)

func (a *app) validateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate PATH…",
		Short: "Say what becomes of each key of compose files: honoured, warned about or refused",
		Long: "Say what becomes of each key of the compose files at or below each path, with file and line:\n" +
			"honoured, warned about or refused. -o wide lists those that are honoured, too.\n" +
			"It asks no daemon. Exit code 1 if a file is refused.",
		Example: "  gitswarm validate .\n  gitswarm validate shop/compose.yaml -o json",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var all compose.Report
			for _, path := range args {
				root, below, err := treeOf(path)
				if err != nil {
					return err
				}
				report, err := compose.Validate(cmd.Context(), compose.Limits{}, compose.FromDir(root), below)
				if err != nil {
					return err
				}
				if len(report.Files) == 0 {
					return fmt.Errorf("validate %s: there is no compose file at or below it", path)
				}
				all.Files = append(all.Files, report.Files...)
			}
			if err := a.show(all, func(wide bool) { a.writeReport(all, wide) }); err != nil {
				return err
			}
			if all.Refused() {
				return &exitError{code: 1}
			}
			return nil
		},
	}
	return a.listFlags(cmd)
}

// writeReport prints what is not simply honoured, and with wide every key.
func (a *app) writeReport(report compose.Report, wide bool) {
	if !wide {
		fmt.Fprint(a.stdout, report.String())
		return
	}
	list := a.table("CLASS", "FILE", "KEY", "TEXT")
	for _, file := range report.Files {
		for _, key := range file.Keys {
			list.add(string(key.Class), fmt.Sprintf("%s:%d", key.File, key.Line), dash(key.Key), dash(key.Text))
		}
	}
	list.write(a.stdout)
}

// treeOf finds the tree that a path belongs to: the repository's, whose files
// a stack may include, or else the folder above it, since a stack is named
// after its folder.
func treeOf(path string) (root, below string, err error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", "", fmt.Errorf("validate %s: %w", path, err)
	}
	info, err := os.Stat(absolute)
	if err != nil {
		return "", "", fmt.Errorf("validate: %w", err)
	}
	folder := absolute
	if !info.IsDir() {
		folder = filepath.Dir(absolute)
	}

	root = filepath.Dir(folder)
	for dir := folder; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
			root = dir
			break
		}
	}
	below, err = filepath.Rel(root, absolute)
	if err != nil {
		return "", "", fmt.Errorf("validate %s: %w", path, err)
	}
	return root, filepath.ToSlash(below), nil
}
