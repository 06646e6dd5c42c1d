package fsck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flatroot/flatroot/store"
)

// recordsFile, below the store's flatroot/, says when each part of the store was last verified.
const recordsFile = "scrub.json"

// saveEvery is how often the records are written while a check runs, so that one that is killed goes on near where it was.
const saveEvery = 10 * time.Second

// records are the times of verification: of objects/xx, layers/DIFFID, blobs/DIGEST, and of images/HEX/INPUT, where INPUT is
// a digest of the rules and layers that it was made of.
type records struct {
	s     *store.Store
	now   func() time.Time
	at    time.Time // when the check began: what is fresh then stays so, and what is verified was read later
	since time.Duration
	owner uint32 // of the store's directory

	mu    sync.Mutex
	Parts map[string]time.Time `json:"parts"`
	saved time.Time
	dirty bool
	kept  map[string]bool // parts that there are
}

func (c *checker) openRecords(context.Context) error {
	r := &records{s: c.s, now: c.Now, at: c.Now(), since: c.Since, saved: c.Now(), kept: map[string]bool{}}
	c.records = r
	info, err := os.Stat(c.s.Dir())
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		r.owner = st.Uid
	}
	// Records that can't be read are as good as none: everything is checked.
	b, err := c.s.ReadFile(recordsFile)
	if err == nil && json.Unmarshal(b, r) != nil {
		err = errors.New("it does not say when what was verified")
		r.Parts, r.dirty = nil, true // parts of it may have been understood
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		c.problem(NoteBad, "flatroot/"+recordsFile, reason(err))
	}
	if r.Parts == nil {
		r.Parts = map[string]time.Time{}
	}
	return nil
}

// fresh tells whether a part was verified recently enough. A time to come counts for nothing.
func (r *records) fresh(part string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	age := r.at.Sub(r.Parts[part])
	return age >= 0 && age < r.since
}

// keep says that there is a part.
func (r *records) keep(part string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[part] = true
}

// prune forgets parts other than objects that are no more.
func (r *records) prune() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for part := range r.Parts {
		if !r.kept[part] && !strings.HasPrefix(part, "objects/") {
			delete(r.Parts, part)
			r.dirty = true
		}
	}
}

// verified notes that a part was read and hashed in this check.
func (r *records) verified(part string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Parts[part], r.dirty = r.at.UTC().Truncate(time.Second), true
	if r.now().Sub(r.saved) >= saveEvery {
		_ = r.write() // it is tried again at the end, where an error counts
	}
}

// forget has a part checked again by the next check.
func (r *records) forget(part string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.Parts[part]; ok {
		delete(r.Parts, part)
		r.dirty = true
	}
}

// save writes the records. A store that is open read-only has none.
func (r *records) save() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.write()
}

func (r *records) write() error {
	if !r.dirty {
		return nil
	}
	b, err := json.Marshal(r)
	if err == nil {
		err = r.s.WriteFile(recordsFile, append(b, '\n'))
	}
	if err != nil && !errors.Is(err, store.ErrReadOnly) {
		return fmt.Errorf("note what was verified: %w", err)
	}
	r.saved, r.dirty = r.now(), false
	return nil
}
