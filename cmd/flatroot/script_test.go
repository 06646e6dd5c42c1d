package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/flatroot/flatroot/mount/fuse/keeper"
	"github.com/flatroot/flatroot/tests/testenv"
)

func TestMain(m *testing.M) {
	if code, is := keeper.Main(os.Args); is {
		os.Exit(code) // a FUSE server of a script's mount
	}
	testscript.Main(inOwnMounts{m}, map[string]func(){
		"flatroot":       main,
		"mkcomposefs":    main,
		"composefs-info": main,
	})
}

// inOwnMounts has what scripts mount seen by no other test. Commands, which are this program too, don't come here.
type inOwnMounts struct{ *testing.M }

func (m inOwnMounts) Run() int {
	if code, done := testenv.InOwnMounts(); done {
		return code
	}
	return m.M.Run()
}

// TestScripts runs the scripts of tests/script, each in a directory of its own with a store yet to be made.
func TestScripts(t *testing.T) {
	helper := sync.OnceValues(func() (string, error) { return buildHelper(t.TempDir()) })
	// A registry of the scripts' own, for those that want one.
	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(images.Close)
	testscript.Run(t, testscript.Params{
		Dir:                 "../../tests/script",
		Condition:           testenv.Condition,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("FLATROOT_UPDATE") == "1",
		Setup: func(e *testscript.Env) error {
			e.Setenv("FLATROOT_STORE", filepath.Join(e.WorkDir, "store"))
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("REGISTRY", strings.TrimPrefix(images.URL, "http://"))
			e.Setenv("FLATROOT_PEERS", os.Getenv("FLATROOT_PEERS"))
			dir, err := helper()
			e.Setenv("PATH", e.Getenv("PATH")+string(filepath.ListSeparator)+dir)
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"json": cmdJSON},
	})
}

// buildHelper builds mount.flatroot, which is a program of its own, and returns the directory where it is.
func buildHelper(dir string) (string, error) {
	cmd := exec.Command("go", "build", "-o", dir, "../mount.flatroot")
	cmd.Stderr = os.Stderr
	return dir, cmd.Run()
}

var snakeCase = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// cmdJSON is "json FILE KEY...": every line of the file is a JSON object that has all the keys, a.b.c for deeper ones, and
// only snake_case names. KEY=VALUE asks for a value besides.
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: json FILE KEY[=VALUE]...")
	}
	text := strings.TrimSuffix(ts.ReadFile(args[0]), "\n")
	for _, line := range strings.Split(text, "\n") {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			ts.Fatalf("not a JSON object: %s: %v", line, err)
		}
		for name := range object {
			if !snakeCase.MatchString(name) {
				ts.Fatalf("%q is not snake_case: %s", name, line)
			}
		}
		for _, want := range args[1:] {
			checkKey(ts, object, want, line)
		}
	}
}

func checkKey(ts *testscript.TestScript, object map[string]any, want, line string) {
	key, value, hasValue := strings.Cut(want, "=")
	var at any = object
	for part := range strings.SplitSeq(key, ".") {
		inner, ok := at.(map[string]any)
		if ok {
			at, ok = inner[part]
		}
		if !ok {
			ts.Fatalf("no %s in %s", key, line)
		}
	}
	got, err := json.Marshal(at)
	ts.Check(err)
	if text, ok := at.(string); ok {
		got = []byte(text)
	}
	if hasValue && string(got) != value {
		ts.Fatalf("%s is %s, not %s, in %s", key, got, value, line)
	}
}
