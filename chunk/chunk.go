// Package chunk cuts an image anew: files that change together get a layer together, so that an update fetches little.
//
// The words: a component is what changes as one, the files of a source package for example. A plan says which components
// share a layer. The step is the time from one release to the next as the statistics see it, a week. A component's history
// has a bit for each step: whether it changed then. What a layer is expected to cost an update is its size, and what a
// request costs, times the probability that one of its components changes in the next step.
//
// A plan is computed from components alone, in integers, so that it is the same on every machine. With the plan of the
// build before it is sticky: a layer of which nothing changed stays as it is, since touching it would have it fetched for
// nothing. What has changed is fetched anyhow, so its components are free to be put elsewhere.
package chunk

import (
	"time"
)

// Component is what changes as one.
type Component struct {
	// Name tells it from all others, and is the same in every build: "rpm/glibc", "file/usr/lib/big".
	Name string
	// Size is what it adds to a layer, in bytes.
	Size int64
	// Digest is that of all that a layer has of it, as long as which nothing of it has changed.
	Digest string
	// Changes are the times at which it is known to have changed, in any order.
	Changes []time.Time
	// Interval is how long it usually stays as it is; zero: Changes tell.
	Interval time.Duration
	// Exclusive components don't share a layer.
	Exclusive bool
}

// Limits of PlanOptions.MaxLayers: below the first there is nothing to plan; overlayfs has up to 128 layers in Docker's
// storage, some of which a derived image needs.
const (
	MinLayers     = 2
	MaxLayers     = 120
	DefaultLayers = 64
)
