package fuse

import (
	"maps"
	"os"
	"testing"

	"github.com/flatroot/flatroot/erofs"
)

func newTestLedger(t *testing.T) (*os.File, *ledger) {
	t.Helper()
	f, err := NewLedger()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, openTestLedger(t, f)
}

func openTestLedger(t *testing.T, f *os.File) *ledger {
	t.Helper()
	l := new(ledger)
	if err := l.open(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.close() })
	return l
}

func loadAll(l *ledger) map[erofs.Nid]int32 {
	m := map[erofs.Nid]int32{}
	l.load(func(nid erofs.Nid, id int32, _ int) { m[nid] = id })
	return m
}

// What one server writes the next one reads, whenever the first one ends.
func TestLedger(t *testing.T) {
	f, l := newTestLedger(t)
	if m := loadAll(l); len(m) != 0 {
		t.Errorf("new: %v", m)
	}
	places := map[erofs.Nid]int{}
	for nid := range erofs.Nid(5) {
		places[nid] = l.write(nid, int32(nid)+10)
	}
	l.erase(places[1])
	l.erase(places[4])
	l.write(7, 1)
	if m, want := loadAll(openTestLedger(t, f)), map[erofs.Nid]int32{0: 10, 2: 12, 3: 13, 7: 1}; !maps.Equal(m, want) {
		t.Errorf("read %v, want %v", m, want)
	}
}

func TestLedgerFull(t *testing.T) {
	_, l := newTestLedger(t)
	loadAll(l)
	seen := map[int]bool{}
	for nid := range erofs.Nid(backingMax) {
		seen[l.write(nid, 1)] = true
	}
	if len(seen) != backingMax || seen[-1] {
		t.Errorf("%d places of %d", len(seen), backingMax)
	}
	if p := l.write(backingMax, 1); p != -1 {
		t.Errorf("one more place: %d", p)
	}
	l.erase(-1)
	l.erase(17)
	if p := l.write(backingMax, 1); p != 17 {
		t.Errorf("the place that became free: %d", p)
	}
}

func TestLedgerBad(t *testing.T) {
	f, l := newTestLedger(t)
	if err := f.Truncate(0); err == nil {
		t.Error("a ledger that is mapped can be made shorter")
	}
	l.words[1].Store(1 << 40) // no ID
	if m := loadAll(l); len(m) != 0 {
		t.Errorf("read %v", m)
	}
	short, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	if err := new(ledger).open(short); err == nil {
		t.Error("opened an empty file")
	}
}

// A server without a ledger works as one that is the only one.
func TestNoLedger(t *testing.T) {
	var l ledger
	loadAll(&l)
	if p := l.write(1, 1); p != -1 {
		t.Errorf("place %d", p)
	}
	l.erase(-1)
	if err := l.close(); err != nil {
		t.Error(err)
	}
}

// What another server has opened is used again and never closed.
func TestOpenTableLoads(t *testing.T) {
	f, l := newTestLedger(t)
	loadAll(l)
	l.write(5, 50)
	var table openTable
	if err := table.ledger.open(f); err != nil {
		t.Fatal(err)
	}
	defer table.ledger.close()
	table.load()
	never := func() (int32, error) { t.Error("registered again"); return 0, nil }
	for range 2 {
		if id, err := table.open(5, never); id != 50 || err != nil {
			t.Errorf("ID %d, %v", id, err)
		}
	}
	for range 3 { // one is of the other server's
		if id, known := table.release(5); id != 0 || !known {
			t.Errorf("closes %d, known %v", id, known)
		}
	}
	if id, err := table.open(6, func() (int32, error) { return 60, nil }); id != 60 || err != nil {
		t.Errorf("new: %d, %v", id, err)
	}
	if m := loadAll(openTestLedger(t, f)); m[6] != 60 || m[5] != 50 {
		t.Errorf("ledger %v", m)
	}
	if id, _ := table.release(6); id != 60 {
		t.Errorf("closes %d", id)
	}
	if m := loadAll(openTestLedger(t, f)); !maps.Equal(m, map[erofs.Nid]int32{5: 50}) {
		t.Errorf("ledger %v", m)
	}
}
