package token

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/moat-gateway/moat/internal/identity"
)

// Holder is implemented by a KeySource that can tell whether a key it offered
// earlier is still in its set. Only tokens of such a source are remembered.
type Holder interface {
	// Holds reports whether the key with this print is in the set now. It is
	// false when the set may not be used any more.
	Holds(print [sha256.Size]byte) bool
}

const (
	// defaultCacheSize is how many verified tokens are remembered.
	defaultCacheSize = 10_000
	mostCacheSize    = 1_000_000
	// refusedSize and refusedFor bound what is remembered of tokens with a bad
	// signature. They have a room of their own: a flood of forged tokens must not
	// push out those of good callers.
	refusedSize = 1024
	refusedFor  = 10 * time.Second
	// rememberedFor is the longest that a verdict counts. Everything that can
	// change is checked again on every hit, so this is a second line only.
	rememberedFor = 5 * time.Minute
)

// Cache remembers verdicts, so that a token which is shown again costs one hash
// and a look-up and no cryptography. It holds no token: entries are found by the
// SHA-256 over what the verifiers were made of and the whole token, so that a
// verdict never counts under other rules than it was made under. It is used by
// many goroutines, and may outlive the verifiers that fill it.
type Cache struct {
	good, bad *table
}

// NewCache returns a cache for size tokens. Zero means 10,000; at most 1,000,000.
func NewCache(size int) *Cache {
	if size <= 0 {
		size = defaultCacheSize
	}
	return &Cache{good: newTable(min(size, mostCacheSize)), bad: newTable(refusedSize)}
}

// Len returns how many accepted tokens are remembered.
func (c *Cache) Len() int { return c.good.len() }

// entry is one verdict. It is never changed once it is in a table.
type entry struct {
	until time.Time // when the entry is no good any more
	made  time.Time

	// Of an accepted token.
	who      *identity.Principal
	print    [sha256.Size]byte // of the key that vouched
	rolesID  [sha256.Size]byte // of the roles that were configured
	begins   time.Time         // nbf, or zero
	issued   time.Time         // iat, or zero
	verifier string            // name of the issuer

	// Of a refused one: the keys that were tried, and what is told.
	reason   string
	tried    [][sha256.Size]byte
	ofIssuer bool
}

// keys are made in buffers of this size: the largest token behind the hash of
// what the verifiers were made of.
type keyBuffer [sha256.Size + largestToken]byte

var keyBuffers = sync.Pool{New: func() any { return new(keyBuffer) }}

// keyOf is where a token's verdict is found. The token must not be longer than
// largestToken.
func keyOf(id *[sha256.Size]byte, raw string) [sha256.Size]byte {
	b := keyBuffers.Get().(*keyBuffer)
	n := copy(b[:], id[:])
	n += copy(b[n:], raw)
	key := sha256.Sum256(b[:n])
	clear(b[:n]) // No token stays behind in memory that is used for other things.
	keyBuffers.Put(b)
	return key
}

// maxShards is into how many parts a table is split at most, each with a lock
// of its own.
const maxShards = 64

// table is a bounded map that forgets what was not asked for lately: the clock
// algorithm, which costs a hit one flag.
type table struct {
	shards []shard
}

type shard struct {
	mu    sync.Mutex
	index map[[sha256.Size]byte]int32
	slots []slot
	most  int
	hand  int
}

type slot struct {
	key   [sha256.Size]byte
	entry *entry
	used  bool
}

func newTable(size int) *table {
	shards := maxShards
	for shards > 1 && size < 8*shards {
		shards /= 2
	}
	t := &table{shards: make([]shard, shards)}
	for i := range t.shards {
		t.shards[i].most = (size + shards - 1) / shards
		t.shards[i].index = map[[sha256.Size]byte]int32{}
	}
	return t
}

// shard picks a part by the key, which is a hash.
func (t *table) shard(key *[sha256.Size]byte) *shard {
	return &t.shards[int(key[0])%len(t.shards)]
}

func (t *table) get(key *[sha256.Size]byte) *entry {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.index[*key]
	if !ok {
		return nil
	}
	s.slots[i].used = true
	return s.slots[i].entry
}

func (t *table) put(key *[sha256.Size]byte, e *entry) {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.index[*key]; ok {
		s.slots[i].entry = e
		return
	}
	i := s.room(e.made)
	s.slots[i] = slot{key: *key, entry: e}
	s.index[*key] = int32(i)
}

// room returns a free slot: a new one, or the first that is over or was not
// asked for since the hand came by.
func (s *shard) room(now time.Time) int {
	if len(s.slots) < s.most {
		s.slots = append(s.slots, slot{})
		return len(s.slots) - 1
	}
	for {
		i := s.hand
		s.hand = (s.hand + 1) % len(s.slots)
		if s.slots[i].used && now.Before(s.slots[i].entry.until) {
			s.slots[i].used = false
			continue
		}
		delete(s.index, s.slots[i].key)
		return i
	}
}

func (t *table) len() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += len(s.index)
		s.mu.Unlock()
	}
	return n
}
