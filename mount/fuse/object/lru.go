package object

// lru is a map that knows which of its values was used longest ago. What exceeds
// max is for the owner to take out with pop.
type lru[K comparable, V any] struct {
	nodes     map[K]*node[K, V]
	root      node[K, V] // of a ring: next is used last, prev longest ago
	used, max int64
}

type node[K comparable, V any] struct {
	prev, next *node[K, V]
	key        K
	value      V
	cost       int64
}

func (l *lru[K, V]) init(max int64) {
	l.nodes = map[K]*node[K, V]{}
	l.root.prev, l.root.next = &l.root, &l.root
	l.max = max
}

// get returns the value, which is the one used last from now on.
func (l *lru[K, V]) get(k K) (v V, ok bool) {
	n, ok := l.nodes[k]
	if !ok {
		return v, false
	}
	l.touch(n)
	return n.value, true
}

func (l *lru[K, V]) touch(n *node[K, V]) {
	n.unlink()
	l.link(n)
}

// put adds a value in place of the key's old one.
func (l *lru[K, V]) put(k K, v V, cost int64) {
	l.remove(k)
	n := &node[K, V]{key: k, value: v, cost: cost}
	l.nodes[k] = n
	l.used += cost
	l.link(n)
}

func (l *lru[K, V]) remove(k K) {
	if n, ok := l.nodes[k]; ok {
		n.unlink()
		delete(l.nodes, k)
		l.used -= n.cost
	}
}

// pop takes out the value that was used longest ago, if there is too much or all
// are to go.
func (l *lru[K, V]) pop(all bool) (v V, ok bool) {
	n := l.root.prev
	if n == &l.root || !all && l.used <= l.max {
		return v, false
	}
	l.remove(n.key)
	return n.value, true
}

// shrink takes out what is too much.
func (l *lru[K, V]) shrink() {
	for {
		if _, ok := l.pop(false); !ok {
			return
		}
	}
}

func (l *lru[K, V]) link(n *node[K, V]) {
	n.prev, n.next = &l.root, l.root.next
	n.prev.next, n.next.prev = n, n
}

func (n *node[K, V]) unlink() {
	n.prev.next, n.next.prev = n.next, n.prev
}
