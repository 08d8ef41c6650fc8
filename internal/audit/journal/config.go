package journal

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

// Defaults and bounds of Config.
const (
	DefaultFsync   = 100 * time.Millisecond
	DefaultSegment = 32 << 20
	DefaultQueue   = 8192
	DefaultWait    = 50 * time.Millisecond
	// DefaultReserve is what a gateway leaves free on the disk.
	DefaultReserve = 256 << 20
	// DefaultCheckpoint and DefaultCheckpointEvents are how often a checkpoint is
	// signed.
	DefaultCheckpoint       = time.Minute
	DefaultCheckpointEvents = 1000

	minFsync, maxFsync     = time.Millisecond, time.Minute
	minSegment, maxSegment = 128 << 10, 1 << 30
	maxQueue               = 1 << 20
	minWait, maxWait       = time.Millisecond, 10 * time.Second
	minKeep                = time.Hour
	maxReserve             = int64(1) << 50

	minCheckpoint, maxCheckpoint = time.Second, time.Hour
	maxCheckpointEvents          = 10_000

	maxInstance = 64
)

// Kinds of trouble that Config.OnTrouble is told of.
const (
	// TroubleFull: the disk or the quota is full. Nothing is written until
	// there is space again.
	TroubleFull = "disk-full"
	// TroubleWrite: a write or the creation of a segment failed for another
	// reason. It is tried again with a new segment.
	TroubleWrite = "write"
	// TroubleFsync: what was written may not survive the end of the machine.
	// The segment is closed for good and a new one is begun.
	TroubleFsync = "fsync"
	// TroubleRemove: an old segment could not be removed.
	TroubleRemove = "remove"
	// TroubleHead: the signed end of the trail could not be written beside it.
	TroubleHead = "head"
	// TroubleOver: the trail is written again. The error is nil.
	TroubleOver = "over"
)

// AutoSize as Config.MaxSize is 80 % of the space that is free when the trail is
// opened, its own size included.
const AutoSize = math.MinInt64

// Level is how safe an event has to be before Record returns.
type Level uint8

const (
	// Queued is in memory, and lost when the process is killed.
	Queued Level = iota
	// Written is handed to the operating system, and survives kill -9.
	Written
	// Synced is on disk, and survives a loss of power.
	Synced
)

var levels = [...]string{Queued: "queued", Written: "written", Synced: "synced"}

// ParseLevel reads "queued", "written" or "synced".
func ParseLevel(s string) (Level, error) {
	for i, name := range levels {
		if s == name {
			return Level(i), nil //nolint:gosec // Three entries.
		}
	}
	return Synced, fmt.Errorf("journal: wait %.32q: must be one of %s", s, strings.Join(levels[:], ", "))
}

// String is the word ParseLevel reads.
func (l Level) String() string {
	if int(l) < len(levels) {
		return levels[l]
	}
	return fmt.Sprintf("Level(%d)", uint8(l))
}

// Config says where a journal is and how it is kept. Zero values mean the
// defaults, except for Dir and Instance, which are required.
type Config struct {
	// Dir is the directory of the trail. It is created with mode 0700 when it
	// does not exist. Files get mode 0600.
	Dir string
	// Instance names the gateway in every event: 1 to 64 letters, digits, ".",
	// "_" or "-".
	Instance string
	// Fsync is the longest time between a write and the fsync that covers it,
	// 1 ms to 1 min. Default: 100 ms.
	Fsync time.Duration
	// FsyncAlways makes Record wait until the event is on disk, for every
	// class. Events that arrive meanwhile share the next fsync.
	FsyncAlways bool
	// Keep is the age at which a segment is removed, counted from its last
	// write, at least 1 h. Default: 0, never.
	Keep time.Duration
	// MaxSize is the size of all segments in bytes above which the oldest are
	// removed, at least two segments, or AutoSize. What is held stays, and then the
	// trail is full. Default: 0, no bound.
	MaxSize int64
	// Segment is the size in bytes at which a new segment is begun, 128 KiB to
	// 1 GiB. Default: 32 MiB.
	Segment int64
	// Queue is how many events may wait for the writer, 1 to 1048576.
	// Default: 8192.
	Queue int
	// Wait is the longest time that Record waits, 1 ms to 10 s. Default: 50 ms.
	Wait time.Duration
	// Reserve is the space in bytes that stays free on the disk. When there is less,
	// the oldest segments go that nobody holds, and when that does not help the
	// trail is full. Default: 0, none.
	Reserve int64
	// Waits says what Record waits for, by class. Default: access Queued, security
	// and admin Written. FsyncAlways makes all of them Synced.
	Waits map[audit.Class]Level
	// KeyFile holds the Ed25519 keys that sign checkpoints, PEM (PKCS #8), the
	// current one first. It is created with mode 0600 when it does not exist.
	// Default: none, and nothing is signed.
	KeyFile string
	// Checkpoint is the longest time between two checkpoints, 1 s to 1 h. Default:
	// 1 min.
	Checkpoint time.Duration
	// CheckpointEvents is the number of events after which there is one, 1 to
	// 10000. Default: 1000.
	CheckpointEvents int
	// Hold returns the number of the last line that every reader who must not
	// miss one has read. Segments with later lines are not removed, whatever
	// Keep and MaxSize say, so a reader that stays away fills the disk. It is
	// called on the writer's goroutine and must be quick. Default: nil, nobody
	// holds anything.
	Hold func() uint64
	// Now is the clock of events that the journal writes itself and of Keep.
	// Default: time.Now.
	Now func() time.Time
	// OnTrouble is told once when the trail cannot be written or kept, with one
	// of the kinds above, and once when that is over. It runs on the writer's
	// goroutine: it must be quick and must not call the journal. May be nil.
	OnTrouble func(kind string, err error)
}

// Validate returns everything that is wrong with the values, joined.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("journal: "+format, args...))
	}
	if c.Dir == "" {
		bad("dir %q: must not be empty", c.Dir)
	}
	if !validInstance(c.Instance) {
		bad("instance %q: must be 1 to %d letters, digits, '.', '_' or '-'", c.Instance, maxInstance)
	}
	c = c.withDefaults()
	if c.Fsync < minFsync || c.Fsync > maxFsync {
		bad("fsync %s: must be %s to %s", c.Fsync, minFsync, maxFsync)
	}
	if c.Keep != 0 && c.Keep < minKeep {
		bad("keep %s: must be at least %s", c.Keep, minKeep)
	}
	if c.Segment < minSegment || c.Segment > maxSegment {
		bad("segment %d: must be %d to %d bytes", c.Segment, minSegment, maxSegment)
	}
	if c.MaxSize != 0 && c.MaxSize != AutoSize && c.MaxSize < 2*c.Segment {
		bad("max_size %d: must be at least two segments, %d bytes", c.MaxSize, 2*c.Segment)
	}
	if c.Reserve < 0 || c.Reserve > maxReserve {
		bad("reserve %d: must be 0 to %d bytes", c.Reserve, maxReserve)
	}
	if c.Checkpoint < minCheckpoint || c.Checkpoint > maxCheckpoint {
		bad("checkpoint %s: must be %s to %s", c.Checkpoint, minCheckpoint, maxCheckpoint)
	}
	if c.CheckpointEvents < 1 || c.CheckpointEvents > maxCheckpointEvents {
		bad("checkpoint events %d: must be 1 to %d", c.CheckpointEvents, maxCheckpointEvents)
	}
	for class, level := range c.Waits {
		if class != class.Known() || int(level) >= len(levels) {
			bad("wait %s %s: must be a class and one of %s", class, level, strings.Join(levels[:], ", "))
		}
	}
	if c.Queue < 1 || c.Queue > maxQueue {
		bad("queue %d: must be 1 to %d events", c.Queue, maxQueue)
	}
	if c.Wait < minWait || c.Wait > maxWait {
		bad("wait %s: must be %s to %s", c.Wait, minWait, maxWait)
	}
	return errors.Join(errs...)
}

// validInstance keeps the name usable as a part of keys and labels elsewhere.
func validInstance(s string) bool {
	if s == "" || len(s) > maxInstance {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

func (c Config) withDefaults() Config {
	if c.Fsync == 0 {
		c.Fsync = DefaultFsync
	}
	if c.Segment == 0 {
		c.Segment = DefaultSegment
	}
	if c.Queue == 0 {
		c.Queue = DefaultQueue
	}
	if c.Wait == 0 {
		c.Wait = DefaultWait
	}
	if c.Checkpoint == 0 {
		c.Checkpoint = DefaultCheckpoint
	}
	if c.CheckpointEvents == 0 {
		c.CheckpointEvents = DefaultCheckpointEvents
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// settings are the tunables in use. Immutable, replaced as a whole.
type settings struct {
	fsync, keep, wait time.Duration
	levels            [3]Level
	maxSize, segment  int64
	reserve           int64
	checkpoint        time.Duration
	checkpointEvents  int
	batch             int // bytes of one write
	hold              func() uint64
	onTrouble         func(kind string, err error)
}

func newSettings(c Config) *settings {
	s := &settings{
		fsync: c.Fsync, keep: c.Keep, wait: c.Wait,
		maxSize: c.MaxSize, segment: c.Segment, reserve: c.Reserve,
		checkpoint: c.Checkpoint, checkpointEvents: c.CheckpointEvents,
		// A batch, with one line more than planned, fits into a new segment.
		batch: int(min(256<<10, c.Segment/2)),
		hold:  c.Hold, onTrouble: c.OnTrouble,
	}
	s.levels[order(audit.Security)], s.levels[order(audit.Admin)] = Written, Written
	for class, level := range c.Waits {
		s.levels[order(class)] = level
	}
	if c.FsyncAlways {
		s.levels = [3]Level{Synced, Synced, Synced}
	}
	if s.onTrouble == nil {
		s.onTrouble = func(string, error) {}
	}
	return s
}

// order gives classes a place in arrays.
func order(c audit.Class) int {
	switch c {
	case audit.Access:
		return 0
	case audit.Admin:
		return 2
	default:
		return 1
	}
}

// byClass is the map form of such an array.
func byClass(n [3]uint64) map[audit.Class]uint64 {
	return map[audit.Class]uint64{audit.Access: n[0], audit.Security: n[1], audit.Admin: n[2]}
}
