package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/swarm"
)

type execFlags struct {
	stdin, tty, noTTY bool
	user, dir         string
	env               []string
}

func (a *app) execCommand() *cobra.Command {
	var flags execFlags
	cmd := &cobra.Command{
		Use:   "exec STACK/SERVICE[.SLOT] -- COMMAND…",
		Short: "Run a command in a running replica",
		Long: "Run a command in a running replica: a healthy one unless a slot is given. On a terminal it is interactive.\n" +
			"The command's exit code is this one's.",
		Example: "  gitswarm exec shop/web -- sh\n  gitswarm exec shop/db.1 -- psql -U postgres\n" +
			"  gitswarm exec -i shop/db -- psql < dump.sql",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			command := args[1:]
			if command[0] == "--" {
				command = command[1:]
			}
			if len(command) == 0 {
				return errors.New("no command was given: gitswarm exec STACK/SERVICE -- COMMAND")
			}
			return a.exec(cmd.Context(), args[0], command, flags)
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().BoolVarP(&flags.stdin, "interactive", "i", false, "send standard input (always on a terminal)")
	cmd.Flags().BoolVarP(&flags.tty, "tty", "t", false, "give the command a terminal (always on a terminal)")
	cmd.Flags().BoolVarP(&flags.noTTY, "no-tty", "T", false, "never give it one")
	cmd.Flags().StringVarP(&flags.user, "user", "u", "", "user to run as")
	cmd.Flags().StringVarP(&flags.dir, "workdir", "w", "", "folder to run in")
	cmd.Flags().StringArrayVarP(&flags.env, "env", "e", nil, "environment: K=V")
	return cmd
}

func (a *app) exec(ctx context.Context, target string, command []string, flags execFlags) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	interactive := terminal(a.stdin) && terminal(a.stdout)
	request := api.ExecRequest{
		Target: target, Args: command, Env: flags.env, User: flags.user, WorkingDir: flags.dir,
		TTY: (flags.tty || interactive) && !flags.noTTY, Stdin: flags.stdin || interactive,
	}
	if request.TTY {
		request.Rows, request.Cols = a.terminalSize()
	}
	conn, err := client.upgrade(ctx, request)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	frames := api.NewFrames(conn, conn)
	if request.TTY && interactive {
		restore, err := a.rawTerminal(ctx, frames)
		if err != nil {
			return err
		}
		defer restore()
	}
	if request.Stdin {
		go a.sendInput(frames) // it ends with the process: a read of stdin cannot be interrupted
	}
	return a.receive(ctx, frames)
}

// sendInput sends standard input and its end.
func (a *app) sendInput(frames *api.Frames) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := a.stdin.Read(buffer)
		if n > 0 && frames.Write(swarm.ExecFrame{Stdin: buffer[:n]}) != nil {
			return
		}
		if err != nil {
			_ = frames.Write(swarm.ExecFrame{EOF: true}) // the process may have ended
			return
		}
	}
}

// receive prints what the process writes and ends with its exit code.
func (a *app) receive(ctx context.Context, frames *api.Frames) error {
	for {
		frame, err := frames.Read()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF):
			return errors.New("the connection ended before the command did (gitswarm status shows whether the replica still runs)")
		case err != nil:
			return err
		case frame.Exit != nil && *frame.Exit == 0:
			return nil
		case frame.Exit != nil:
			return &exitError{code: *frame.Exit}
		}
		if _, err := a.stdout.Write(frame.Stdout); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
		if _, err := a.stderr.Write(frame.Stderr); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
	}
}

// rawTerminal gives the process every key, and tells it the terminal's size as
// it changes.
func (a *app) rawTerminal(ctx context.Context, frames *api.Frames) (restore func(), err error) {
	file, ok := a.stdin.(*os.File)
	if !ok {
		return func() {}, nil
	}
	state, err := term.MakeRaw(int(file.Fd()))
	if err != nil {
		return nil, fmt.Errorf("set terminal to raw: %w", err)
	}

	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	ctx, stop := context.WithCancel(ctx)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-resized:
				rows, cols := a.terminalSize()
				if frames.Write(swarm.ExecFrame{Rows: rows, Cols: cols}) != nil {
					return
				}
			}
		}
	}()
	return func() {
		signal.Stop(resized)
		stop()
		_ = term.Restore(int(file.Fd()), state) // nothing is left to be done about it
	}, nil
}

func (a *app) terminalSize() (rows, cols uint16) {
	file, ok := a.stdout.(*os.File)
	if !ok {
		return 24, 80
	}
	width, height, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 24, 80
	}
	return uint16(height), uint16(width)
}
