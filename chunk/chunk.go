// Package chunk cuts an image anew: files that change together get a layer together, so that an update fetches little.
//
// The words: a component is what changes as one, the files of a source package for example. A plan says which components
// share a layer. The step is the time from one release to the next as the statistics see it, a week. A component's history
// has a bit for each grain, a week or a shorter step: whether it changed in the step that ended then. What a layer is expected to cost an update is its size, and what a
// request costs, times the probability that one of its components changes in the next step.
//
// A plan is computed from components alone, in integers, so that it is the same on every machine. With the plan of the
// build before it is sticky: a layer of which nothing changed stays as it is, since touching it would have it fetched for
// nothing. What has changed is fetched anyhow, so its components are free to be put elsewhere.
package chunk

import "time"

// Component is what changes as one.
type Component struct {
	// Name tells it from all others, and is the same in every build: "rpm/glibc", "file/usr/lib/big".
	Name string
	// Size is what it adds to a layer, in bytes.
	Size int64
	// Digest is that of all that a layer has of it: as long as that is the same, nothing of it has changed. Empty: it is not
	// known, so that it counts as changed.
	Digest string
	// Changes are the times at which it is known to have changed, in any order.
	Changes []time.Time
	// Interval is how long it usually stays as it is, for what Changes don't tell; zero: rareInterval.
	Interval time.Duration
	// Exclusive components don't share a layer.
	Exclusive bool
}

// Limits of PlanOptions.MaxLayers. Below the first there is nothing to plan. Overlay mounts of Docker have up to 128
// layers, of which a container needs some itself, and images that are derived need theirs.
const (
	MinLayers     = 2
	MaxLayers     = 120
	DefaultLayers = 64
)
