package replay

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// standIn is a chunkah that makes one layer of all packages.
const standIn = `#!/bin/sh
set -e
while [ $# -gt 0 ]; do
	case $1 in
	--rootfs) root=$2;;
	--output) image=${2#oci:};;
	esac
	shift
done
names=$(rpm -qa | sed -n 's|^@@PKG@@.\([^[:space:]]*\).*|rpm/\1|p' | tr '\n' ' ')
layer=$(cat "$root"/[0-9]* | sha256sum | cut -c-64)
mkdir -p "$image/blobs/sha256"
m=$(echo manifest | sha256sum | cut -c-64)
echo "{\"manifests\": [{\"digest\": \"sha256:$m\"}]}" >"$image/index.json"
echo "{\"layers\": [{\"digest\": \"sha256:$layer\", \"annotations\": {\"org.chunkah.component\": \"$names\"}}]}" >"$image/blobs/sha256/$m"
`

// TestChunkah: what a program makes of the tree it is given is counted as for other policies.
func TestChunkah(t *testing.T) {
	tr := trace(t, "minimal")
	c := Case{Pace: Pace{Days: 7, Steps: 8}, N: 16, Churn: true, Seed: 1}
	p := Chunkah{Program: script(t, standIn)}
	got, want := Run(tr, c, p.Policy().New()), Run(tr, c, single)
	got.PlanMS, want.PlanMS = 0, 0
	if p.Err != nil || got != want {
		t.Errorf("%+v, %v; a single layer has %+v", got, p.Err, want)
	}
	if p.Releases != 9 || p.Apart != 9 {
		t.Errorf("of %d releases %d are cut otherwise than by hashes; all of 9 should be", p.Releases, p.Apart)
	}
}

// TestChunkahFails: figures don't come from a program that fails, or whose layers aren't what they are counted as.
func TestChunkahFails(t *testing.T) {
	for _, tt := range []struct{ name, from, to, want string }{
		{"program", "set -e", "echo no database; exit 1", "no database"},
		{"image", `>"$image/index.json"`, `>/dev/null`, "index.json"},
		{"names", "|rpm/", "|xattr/", "which is no component"},
		{"components", "$names\\", "\\", "layers have 0 components"},
		{"same bytes", `cat "$root"/[0-9]*`, "echo always the same", "had other components before"},
		{"other bytes", `cat "$root"/[0-9]*`, "mktemp -u", "which had other bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := strings.Replace(standIn, tt.from, tt.to, 1)
			if changed == standIn {
				t.Fatal("the stand-in is as before")
			}
			tr := trace(t, "minimal")
			if tt.name == "other bytes" {
				for k := range tr.Components {
					tr.Components[k].Changes = nil
				}
			}
			row := Row{Trace: "minimal", Pace: Pace{Days: 7, Steps: 8}, N: 16}
			err := new(Compared).RunChunkah(row, tr, script(t, changed))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func script(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "chunkah")
	if err := os.WriteFile(name, []byte(content), 0o777); err != nil {
		t.Fatal(err)
	}
	return name
}
