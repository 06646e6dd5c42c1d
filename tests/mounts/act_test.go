package mounts

import (
	"fmt"
	"os"
)

// acts are what the test program does instead of testing when actVariable says so.
var acts = map[string]func(args []string) error{
	"walk":  mountAndWalk,
	"alone": walkAlone,
}

func runAct(name string) int {
	act := acts[name]
	if act == nil {
		fmt.Fprintf(os.Stderr, "no act %q\n", name)
		return 2
	}
	if err := act(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}
