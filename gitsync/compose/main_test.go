package compose

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
)

// TestMain is also the main of the child: the tests load in the process that
// they start from their own binary.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ChildArgument {
		if err := ServeChild(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 3 && os.Args[1] == "landlock-probe" {
		probe(os.Args[2], os.Args[3])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// probe confines itself to a folder and says what it can still reach.
func probe(folder, outside string) {
	if err := landlock(folder); err != nil {
		fmt.Println("landlock:", err)
		return
	}
	_, err := os.ReadFile(outside)
	fmt.Println("outside:", errors.Is(err, fs.ErrPermission))
	fmt.Println("inside:", os.WriteFile(folder+"/x", nil, 0o600))
}
