// Command flatroot is the program of the package documentation; run as mkcomposefs or composefs-info it is those tools.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	switch filepath.Base(os.Args[0]) {
	case "mkcomposefs":
		os.Exit(mkcomposefsMain(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	case "composefs-info":
		os.Exit(composefsInfoMain(os.Args[1:], os.Stdout, os.Stderr))
	}
	fmt.Fprintln(os.Stderr, "flatroot: run it as mkcomposefs or composefs-info")
	os.Exit(2)
}
