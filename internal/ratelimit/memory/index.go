package memory

import "hash/maphash"

// index finds a shard's slots by their keys: chains that run through the slab.
// It is no map, because a map whose keys come and go all the time grows on and on
// although it never holds more of them.
type index struct {
	seed  maphash.Seed
	heads []int32 // as many as a power of two; the first slot of a chain, see slot.next
}

// hash is that of the whole store. The seed keeps strangers from choosing subjects
// of one shard or chain.
func hash(seed maphash.Seed, key [16]byte) uint64 { return maphash.Bytes(seed, key[:]) }

// chain is where the chain of a key begins. The lower half of the hash chose the
// shard.
func (x *index) chain(key [16]byte) *int32 {
	return &x.heads[hash(x.seed, key)>>32&uint64(len(x.heads)-1)]
}

// find returns the slot of a key.
func (sh *shard) find(key [16]byte) (int32, bool) {
	if len(sh.slab) == 0 {
		return -1, false
	}
	for n := *sh.chain(key); n != 0; n = sh.slab[n-1].next {
		if sh.slab[n-1].key == key {
			return n - 1, true
		}
	}
	return -1, false
}

// link makes a slot known by its key.
func (sh *shard) link(at int32) {
	if len(sh.slab) > len(sh.heads) {
		sh.relink()
		return
	}
	head := sh.chain(sh.slab[at].key)
	sh.slab[at].next, *head = *head, at+1
}

// relink links all slots to more chains, so that these stay short.
func (sh *shard) relink() {
	sh.heads = make([]int32, max(16, 2*len(sh.heads)))
	for at := range sh.slab {
		head := sh.chain(sh.slab[at].key)
		sh.slab[at].next, *head = *head, int32(at)+1 //nolint:gosec // At most MaxCapacity.
	}
}

// unlink undoes link.
func (sh *shard) unlink(at int32) {
	n := sh.chain(sh.slab[at].key)
	for *n != at+1 {
		n = &sh.slab[*n-1].next
	}
	*n = sh.slab[at].next
}
