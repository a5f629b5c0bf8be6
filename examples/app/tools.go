package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tools are the commands that look around in a container, since the image has
// no shell to do it. Each fails with exit code 1.
var tools = map[string]func(args []string) error{
	"cat":    cat,    // FILE…         what they hold
	"write":  write,  // FILE TEXT     makes it, or replaces what it held
	"stat":   stat,   // FILE…         mode, uid:gid, size, name
	"copy":   echo,   //               standard input to standard output
	"exit":   exit,   // CODE
	"sleep":  sleep,  // DURATION
	"spawn":  spawn,  // COUNT         so many processes at once
	"lookup": lookup, // NAME          its addresses
	"get":    get,    // URL           what it answers
}

func cat(args []string) error {
	for _, path := range args {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(data); err != nil {
			return err
		}
	}
	return nil
}

func write(args []string) error {
	if len(args) != 2 {
		return errors.New("write: give FILE TEXT")
	}
	return os.WriteFile(args[0], []byte(args[1]), 0o644)
}

func stat(args []string) error {
	for _, path := range args {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		name := path
		if info.Mode()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			name += " -> " + target
		}
		owner, _ := info.Sys().(*syscall.Stat_t)
		fmt.Printf("%s %d:%d %d %s\n", info.Mode(), owner.Uid, owner.Gid, info.Size(), name)
	}
	return nil
}

func echo([]string) error {
	_, err := io.Copy(os.Stdout, os.Stdin)
	return err
}

func exit(args []string) error {
	code, err := strconv.Atoi(strings.Join(args, ""))
	if err != nil {
		return err
	}
	os.Exit(code)
	return nil
}

func sleep(args []string) error {
	d, err := time.ParseDuration(strings.Join(args, ""))
	time.Sleep(d)
	return err
}

func spawn(args []string) error {
	count, err := strconv.Atoi(strings.Join(args, ""))
	if err != nil {
		return err
	}
	for i := range count {
		child := exec.Command("/proc/self/exe", "sleep", "1m")
		if err := child.Start(); err != nil {
			return fmt.Errorf("start process %d: %w", i+1, err)
		}
		defer func() {
			_ = child.Process.Kill() // it may have ended
			_ = child.Wait()
		}()
	}
	fmt.Println(count, "processes")
	return nil
}

func lookup(args []string) error {
	addresses, err := net.LookupHost(strings.Join(args, ""))
	if err == nil {
		fmt.Println(strings.Join(addresses, "\n"))
	}
	return err
}

// needs reads each of a list of files and URLs.
func needs(list string) error {
	for need := range strings.SplitSeq(list, ",") {
		var err error
		switch {
		case need == "":
		case strings.HasPrefix(need, "http://"):
			err = get([]string{need})
		default:
			_, err = os.Stat(need)
		}
		if err != nil {
			return fmt.Errorf("need %s: %w", need, err)
		}
	}
	return nil
}

func get(args []string) error {
	client := http.Client{Timeout: 2 * time.Second}
	answer, err := client.Get(strings.Join(args, ""))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(os.Stdout, io.LimitReader(answer.Body, 1<<20))
	return err
}

// hold takes so much memory, and keeps it.
func hold(mebibytes int) []byte {
	return bytes.Repeat([]byte("gitswarm"), mebibytes<<20/len("gitswarm"))
}
