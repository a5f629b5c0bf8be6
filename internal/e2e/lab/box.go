package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A box is a machine to what runs in it: processes, mounts, network, hostname
// and /run are its own. It is there as long as its first process; when that
// ends, the kernel ends all others in it and takes mounts and network away.
type box struct {
	name  string
	first *exec.Cmd
	mark  string // file that tells a program begun anew which process that is
}

// openBox is what the first process does. It stays to collect orphans, which
// bash does while it waits.
const openBox = `set -e
hostname "$1"
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
ip link set lo up
echo open
exec >/dev/null
sleep infinity &
wait
`

// boxEnv marks all processes of boxes: traces looks for it.
const boxEnv = "GITSWARM_LAB_BOX"

// newBox opens a box. Its mark is a file below dir.
func newBox(dir, name string) (*box, error) {
	b := &box{name: name, mark: filepath.Join(dir, "box-"+name)}
	b.first = exec.Command("bash", "-c", openBox, "box", name)
	b.first.Env = append(os.Environ(), boxEnv+"="+dir)
	b.first.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS,
		Setpgid:    true, Pdeathsig: syscall.SIGKILL,
	}
	var complaint bytes.Buffer
	b.first.Stderr = &complaint
	out, err := b.first.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.first.Start(); err != nil {
		return nil, fmt.Errorf("open box %s: %w", name, err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "open\n" {
		b.close()
		return nil, fmt.Errorf("open box %s: %w: %s", name, err, complaint.String())
	}
	return b, os.WriteFile(b.mark, []byte(identity(b.pid())), 0o600)
}

func (b *box) pid() int { return b.first.Process.Pid }

// close ends all that runs in the box.
func (b *box) close() {
	_ = b.first.Process.Kill() // it may have ended by itself
	_ = b.first.Wait()         // reports the signal that was just sent
	_ = os.Remove(b.mark)
}

// identity names a process so that another one with its number is told apart;
// it is empty when the process has gone.
func identity(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	return strconv.Itoa(pid) + " " + startTime(string(stat))
}

// closeMarked ends the boxes whose marks are in dir, for a program that did
// not open them.
func closeMarked(dir string) error {
	marks, err := filepath.Glob(filepath.Join(dir, "box-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, mark := range marks {
		text, err := os.ReadFile(mark)
		if err != nil {
			return err
		}
		pid, err := strconv.Atoi(strings.Fields(string(text) + " x")[0])
		if err != nil || identity(pid) != string(text) {
			continue // it has ended already
		}
		errs = append(errs, syscall.Kill(pid, syscall.SIGKILL))
	}
	return errors.Join(errs...)
}

// command is a command that runs in the box once it is started.
func (b *box) command(args ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(b.pid()), "--net", "--mount", "--uts", "--pid", "--"}
	cmd := exec.Command("nsenter", append(enter, args...)...)
	cmd.Env = append(os.Environ(), boxEnv+"="+filepath.Dir(b.mark))
	cmd.SysProcAttr = ownGroup()
	return cmd
}

// do runs a command in the box to its end.
func (b *box) do(args ...string) error {
	if text, err := b.command(args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s in %s: %w: %s", strings.Join(args, " "), b.name, err, bytes.TrimSpace(text))
	}
	return nil
}

// listen opens a TCP socket in the box's network.
func (b *box) listen(address string) (listener net.Listener, err error) {
	err = b.within(func() error {
		listener, err = net.Listen("tcp", address)
		return err
	})
	return listener, err
}

// dial connects from the box's network.
func (b *box) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = b.within(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// within runs what with the calling thread in the box's network: sockets made
// there stay there.
func (b *box) within(what func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", b.pid()))
	if err == nil {
		defer there.Close()
		err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the network of %s: %w", b.name, err)
	}
	err = what()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, back) // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// Program is one that runs on a host; nsenter, which brought it there, waits
// for it.
type Program struct {
	enter *exec.Cmd
	pid   int           // as this program sees it
	ended chan struct{} // closed once it has
}

// start starts a program in the box. Its output goes to out.
func (b *box) start(out io.Writer, env []string, args ...string) (*Program, error) {
	p := &Program{enter: b.command(args...), ended: make(chan struct{})}
	p.enter.Env = append(p.enter.Env, env...)
	p.enter.Stdout, p.enter.Stderr = out, out
	if err := p.enter.Start(); err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", args[0], b.name, err)
	}
	go func() {
		_ = p.enter.Wait() // how it ended is of no interest here
		close(p.ended)
	}()
	err := Poll(context.Background(), 10*time.Second, args[0]+" is started in "+b.name, func() bool {
		p.pid = childOf(p.enter)
		return p.pid != 0 || p.over()
	})
	if err == nil && p.pid == 0 {
		err = fmt.Errorf("start %s in %s: it ended at once", args[0], b.name)
	}
	if err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// childOf is the process that nsenter waits for; 0 if there is none.
func childOf(enter *exec.Cmd) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", enter.Process.Pid, enter.Process.Pid)) // it may have ended
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

// ending makes the end of a command's context end what nsenter waits for, not
// nsenter: a process in a box whose parent outside of it has gone may find
// nobody to collect it, and a box does not close before all in it are.
func ending(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr, cmd.WaitDelay = ownGroup(), 5*time.Second
	cmd.Cancel = func() error {
		if pid := childOf(cmd); pid != 0 {
			return syscall.Kill(pid, syscall.SIGKILL)
		}
		return cmd.Process.Kill()
	}
	return cmd
}

// PID is the program's process, as this program sees it.
func (p *Program) PID() int { return p.pid }

// over reports whether the process has ended.
func (p *Program) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Kill ends the process with SIGKILL and waits until it has gone.
func (p *Program) Kill() {
	if p.pid != 0 && !p.over() {
		_ = syscall.Kill(p.pid, syscall.SIGKILL) // it may end by itself at this moment
		p.resume()                               // nsenter stops when its child does
	}
	<-p.ended
}

// stop asks the process to end, and waits until it has.
func (p *Program) stop(patience time.Duration) {
	if p.over() {
		return
	}
	_ = syscall.Kill(p.pid, syscall.SIGTERM) // it may end by itself at this moment
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.Kill()
	}
}

// pause stops the process as SIGSTOP does, and waits until nsenter has stopped
// as well, as it does then; resume lets both go on.
func (p *Program) pause(ctx context.Context) error {
	if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("pause process %d: %w", p.pid, err)
	}
	return Poll(ctx, 5*time.Second, "nsenter has stopped", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.enter.Process.Pid))
		return err != nil || strings.Contains(string(stat), ") T ")
	})
}

func (p *Program) resume() {
	_ = syscall.Kill(p.pid, syscall.SIGCONT)    // it may have ended
	_ = p.enter.Process.Signal(syscall.SIGCONT) // it stops itself when its child is stopped
}
