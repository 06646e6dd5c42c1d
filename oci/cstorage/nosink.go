//go:build cgo && !exclude_graphdriver_btrfs

package cstorage

import (
	"fmt"

	"github.com/flatroot/flatroot/oci"
)

// Helper is always false: the library that starts helpers is not in this program.
func Helper() bool { return false }

// Create refuses. With cgo the library wants the C headers of btrfs, and no program of this module needs cgo.
func Create(ref oci.Reference) (oci.LayerSink, error) {
	return nil, fmt.Errorf("%s: this flatroot can't write to stores of containers-storage: it was built with CGO_ENABLED=1 and without the tag exclude_graphdriver_btrfs", ref)
}
