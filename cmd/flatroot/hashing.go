package main

import (
	"errors"
	"os"
	"sync"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

var errSizeChanged = errors.New("its size changed while it was read")

// hashJob is a file on its way through the pool, and afterwards what was found.
type hashJob struct {
	node    tree.Node
	file    *os.File // the pool closes it
	size    int64    // bytes
	content []byte   // of a file of at most inlineMax bytes
	digest  fsverity.Digest
	err     error
}

// hashing is a pool of goroutines that read files. What they find is handed back to the one goroutine that owns the tree,
// whenever it calls. The number of files in the pool is bounded.
type hashing struct {
	o       scanOptions
	jobs    chan hashJob
	results chan hashJob
	workers sync.WaitGroup
	pending int // in the pool
}

func startHashing(o scanOptions) *hashing {
	h := &hashing{o: o, jobs: make(chan hashJob, o.threads), results: make(chan hashJob, o.threads)}
	for range o.threads {
		h.workers.Go(func() {
			for j := range h.jobs {
				h.do(&j)
				j.err = errors.Join(j.err, j.file.Close())
				h.results <- j
			}
		})
	}
	return h
}

func (h *hashing) do(j *hashJob) {
	if j.size <= inlineMax {
		j.content, j.err = readAll(j.file, j.size)
		return
	}
	if j.digest, j.err = hashSized(j.file, j.size); j.err == nil && h.o.keep != nil {
		j.err = h.o.keep(j.file, j.digest)
	}
}

// hashSized is hashFile for a file that must be of the size it had before.
func hashSized(f *os.File, size int64) (fsverity.Digest, error) {
	h := fsverity.NewHasher(scanAlgorithm)
	if err := copyTo(h, f); err != nil {
		return fsverity.Digest{}, err
	}
	if h.Size() != size {
		return fsverity.Digest{}, errSizeChanged
	}
	return h.Sum(), nil
}

// add puts a file into the pool. Meanwhile done is called for files that are through.
func (h *hashing) add(j hashJob, done func(*hashJob) error) error {
	for {
		select {
		case h.jobs <- j:
			h.pending++
			return nil
		case r := <-h.results:
			h.pending--
			if err := done(&r); err != nil {
				return errors.Join(err, j.file.Close())
			}
		}
	}
}

// stop waits for all files that are still in the pool and returns the first error of done.
func (h *hashing) stop(done func(*hashJob) error) (first error) {
	close(h.jobs)
	for ; h.pending > 0; h.pending-- {
		r := <-h.results
		if err := done(&r); err != nil && first == nil {
			first = err
		}
	}
	h.workers.Wait()
	return first
}
