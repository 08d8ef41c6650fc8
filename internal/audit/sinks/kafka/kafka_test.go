package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/kafka"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

const (
	topic      = "moat.audit"
	partitions = 3
)

// cluster is kfake, the client library's own imitation of a broker in this
// process, and not a real broker: what it does by itself is what its authors
// know of Kafka.
type cluster struct {
	*kfake.Cluster
	socket string // of its only broker
}

// named is a listener on a unix socket that claims another address, which is
// what the broker tells its clients.
type named struct {
	net.Listener
	address *net.TCPAddr
}

func (n named) Addr() net.Addr { return n.address }

func start(t testing.TB, opts ...kfake.Opt) cluster {
	t.Helper()
	return startAt(t, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9092}, opts...)
}

func startAt(t testing.TB, advertised *net.TCPAddr, opts ...kfake.Opt) cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "moat-k")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := cluster{socket: filepath.Join(dir, "k.sock")}
	listen := func(string, string) (net.Listener, error) {
		l, err := net.Listen("unix", c.socket)
		return named{l, advertised}, err
	}
	c.Cluster, err = kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic), kfake.ListenFn(listen),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// to returns a way to connect that leads to a unix socket whatever the address.
func to(socket string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
}

// open returns a sink for the cluster with what cfg says besides.
func (c cluster) open(t testing.TB, cfg kafka.Config) *kafka.Sink {
	t.Helper()
	if cfg.CAFile == "" {
		cfg.Plaintext = true
	}
	if cfg.Brokers == nil {
		cfg.Brokers = []string{"127.0.0.1:9092"}
	}
	if cfg.Topic == "" {
		cfg.Topic = topic
	}
	if cfg.Dial == nil {
		cfg.Dial = to(c.socket)
	}
	s, err := kafka.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// records returns everything the topic holds, by partition and offset.
func (c cluster) records(t testing.TB) []*kgo.Record {
	t.Helper()
	want, from := int64(0), map[int32]kgo.Offset{}
	for _, p := range c.PartitionInfos(topic) {
		want += p.HighWatermark
		from[p.Partition] = kgo.NewOffset().AtStart()
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:9092"), kgo.Dialer(to(c.socket)), kgo.FetchMaxWait(10*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var all []*kgo.Record
	for int64(len(all)) < want {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		all = append(all, fetches.Records()...)
	}
	slices.SortStableFunc(all, func(a, b *kgo.Record) int { return int(a.Partition - b.Partition) })
	return all
}

// held returns how many records the topic holds.
func (c cluster) held() int64 {
	held := int64(0)
	for _, p := range c.PartitionInfos(topic) {
		held += p.HighWatermark
	}
	return held
}

func (c cluster) values(t testing.TB) []string {
	t.Helper()
	var values []string
	for _, r := range c.records(t) {
		values = append(values, string(r.Value))
	}
	return values
}

// produced sees each produce request before the broker does.
func (c cluster) produced(see func(*kmsg.ProduceRequest)) {
	c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		see(req.(*kmsg.ProduceRequest))
		return nil, nil, false
	})
}

func proxied(t *testing.T, c cluster) (*sinktest.Proxy, string) {
	t.Helper()
	address := c.socket + ".x"
	return sinktest.StartProxy(t, address, c.socket), address
}

func contents(lines []follow.Line) []string {
	var all []string
	for _, line := range lines {
		all = append(all, string(line.Content()))
	}
	return all
}

func TestSuite(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		c := start(t)
		proxy, address := proxied(t, c)
		return sinktest.Harness{
			Open: func(t *testing.T) follow.Sink {
				return c.open(t, kafka.Config{Dial: to(address), Timeout: time.Second})
			},
			Received: func(t *testing.T) []string { return c.values(t) },
			Fault:    proxy.Set,
		}
	})
}

func TestARecordSaysWhichLineItIs(t *testing.T) {
	c := start(t)
	line := sinktest.Line(7, 0)
	line.Class, line.Epoch = "security", "boot-9"
	if err := c.open(t, kafka.Config{}).Deliver(t.Context(), []follow.Line{line}); err != nil {
		t.Fatal(err)
	}
	records := c.records(t)
	if len(records) != 1 {
		t.Fatalf("%d records", len(records))
	}
	headers := map[string]string{}
	for _, h := range records[0].Headers {
		headers[h.Key] = string(h.Value)
	}
	if len(headers) != 3 || headers["epoch"] != "boot-9" || headers["seq"] != "7" || headers["class"] != "security" {
		t.Errorf("headers = %v", headers)
	}
	if got := string(records[0].Key); got != line.Instance {
		t.Errorf("key = %q", got)
	}
	if got := string(records[0].Value); got != string(line.Raw) {
		t.Errorf("value = %q", got)
	}
}

func TestOneInstanceStaysInOnePartition(t *testing.T) {
	c := start(t)
	s := c.open(t, kafka.Config{})
	lines := sinktest.Lines(1, 60)
	for i := range lines {
		lines[i].Instance = "gw-" + strconv.Itoa(i%6)
	}
	for _, part := range [][]follow.Line{lines[:20], lines[20:]} {
		if err := s.Deliver(t.Context(), part); err != nil {
			t.Fatal(err)
		}
	}
	places, last := map[string]int32{}, map[string]int{}
	for _, r := range c.records(t) {
		key := string(r.Key)
		if place, known := places[key]; known && place != r.Partition {
			t.Errorf("%s is in partitions %d and %d", key, place, r.Partition)
		}
		seq, err := strconv.Atoi(string(r.Headers[0].Value))
		if err != nil || seq <= last[key] {
			t.Errorf("%s: %d after %d, %v", key, seq, last[key], err)
		}
		places[key], last[key] = r.Partition, seq
	}
	if len(places) != 6 {
		t.Errorf("instances: %v", places)
	}
}

// The broker knows nothing of a new producer and takes any of its batches, so a
// first delivery of several batches could arrive without its beginning.
func TestTheFirstDeliveryOfAClientIsOneBatch(t *testing.T) {
	for _, compression := range []string{"zstd", "lz4", "snappy", "gzip", "none"} {
		c := start(t)
		var mu sync.Mutex
		var counts []int32
		c.produced(func(req *kmsg.ProduceRequest) {
			var batch kmsg.RecordBatch
			err := batch.ReadFrom(req.Topics[0].Partitions[0].Records)
			if err != nil || len(req.Topics[0].Partitions) != 1 || batch.ProducerID < 0 || req.Acks != -1 {
				t.Errorf("%d partitions, producer %d, acks %d, %v", len(req.Topics[0].Partitions), batch.ProducerID, req.Acks, err)
			}
			mu.Lock()
			defer mu.Unlock()
			counts = append(counts, batch.NumRecords)
		})
		s := c.open(t, kafka.Config{Compression: compression})
		lines := sinktest.Lines(1, 300)
		for range 2 {
			if err := s.Deliver(t.Context(), lines); err != nil {
				t.Fatal(err)
			}
		}
		if counts[0] != 300 {
			t.Errorf("%s: batches of %d records", compression, counts)
		}
		if got := c.values(t); !slices.Equal(got[:300], contents(lines)) || !slices.Equal(got[300:], contents(lines)) {
			t.Errorf("%s: the lines came changed or in another order", compression)
		}
	}
}

// TestAClientThatWasIdleIsReplaced: after a day a broker forgets a producer, and
// takes a batch of it out of order.
func TestAClientThatWasIdleIsReplaced(t *testing.T) {
	c := start(t)
	producers := make(map[int64]bool)
	var mu sync.Mutex
	c.produced(func(req *kmsg.ProduceRequest) {
		var batch kmsg.RecordBatch
		if err := batch.ReadFrom(req.Topics[0].Partitions[0].Records); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		producers[batch.ProducerID] = true
	})
	s, now := c.open(t, kafka.Config{}), time.Now()
	s.SetClock(func() time.Time { return now })
	for i, wait := range []time.Duration{0, 9 * time.Minute, 11 * time.Minute} {
		now = now.Add(wait)
		if err := s.Deliver(t.Context(), sinktest.Lines(uint64(i+1), uint64(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(producers) != 2 {
		t.Errorf("%d producers, want another one after the long wait only", len(producers))
	}
}

func TestAVeryLargeLineArrivesWhole(t *testing.T) {
	c := start(t)
	line := sinktest.Line(1, follow.MaxLine)
	if err := c.open(t, kafka.Config{}).Deliver(t.Context(), []follow.Line{line}); err != nil {
		t.Fatal(err)
	}
	if got := c.values(t); len(got) != 1 || got[0] != string(line.Raw) {
		t.Errorf("%d records", len(got))
	}
}

func TestAFailureThatPassesIsBorneWithoutDuplicates(t *testing.T) {
	t.Parallel()
	c := start(t)
	s := c.open(t, kafka.Config{})
	lines := sinktest.Lines(1, 60)
	for i, answer := range []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.NotEnoughReplicas, kerr.KafkaStorageError,
		// Here the broker has the batch and says so when it comes again.
		kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut,
	} {
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: answer, Count: 2})
		if err := s.Deliver(t.Context(), lines[10*i:10*i+10]); err != nil {
			t.Errorf("%v: %v", answer, err)
		}
	}
	if got := c.values(t); !slices.Equal(got, contents(lines)) {
		t.Errorf("%d lines, or in another order", len(got))
	}
}

func TestABrokerThatKeepsFailingLosesNothingAndOrderHolds(t *testing.T) {
	t.Parallel()
	c := start(t)
	s := c.open(t, kafka.Config{Timeout: 2 * time.Second})
	answers := []*kerr.Error{kerr.NotEnoughReplicas, kerr.UnknownServerError, kerr.NotEnoughReplicasAfterAppend, kerr.OutOfOrderSequenceNumber, kerr.CorruptMessage}
	lines, failures := sinktest.Lines(1, 100), 0
	for i := 0; i < len(lines); i += 10 {
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: answers[i/10%len(answers)], Count: 1 + i%7})
		for {
			err := s.Deliver(t.Context(), lines[i:i+10])
			if err == nil {
				break
			}
			failures++
		}
	}
	if failures == 0 {
		t.Error("no delivery failed, so nothing was tried")
	}
	seen := map[string]bool{}
	got := slices.DeleteFunc(c.values(t), func(value string) bool {
		again := seen[value]
		seen[value] = true
		return again
	})
	if !slices.Equal(got, contents(lines)) {
		t.Errorf("%d different lines, or in another order", len(got))
	}
}

// within waits for a condition on another goroutine.
func within(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for !met() {
		select {
		case <-deadline:
			t.Fatalf("not within five seconds: %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func TestNothingOfAFailedDeliveryIsSentLater(t *testing.T) {
	t.Parallel()
	c := start(t)
	proxy, address := proxied(t, c)
	s := c.open(t, kafka.Config{Dial: to(address), Timeout: time.Second})
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 2)); err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int64
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		requests.Add(1)
		return nil, nil, true // the broker has it and never answers
	})
	if err := s.Deliver(t.Context(), sinktest.Lines(3, 4)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Deliver = %v", err)
	}
	within(t, "the end of all connections", func() bool { return proxy.Connections() == 0 })
	if requests.Load() != 1 {
		t.Errorf("%d requests, so the delivery that has to fail did not", requests.Load())
	}
	if err := s.Deliver(t.Context(), sinktest.Lines(3, 3)); err != nil {
		t.Fatal(err)
	}
	if got := c.values(t); !slices.Equal(got, contents(sinktest.Lines(1, 3))) {
		t.Errorf("%d lines", len(got))
	}
}

// A request that the broker takes up only after the gateway has given it up is a
// batch of its own that begins where the next delivery began as well.
func TestALateBatchBringsNoLineBeforeAnEarlierOne(t *testing.T) {
	t.Parallel()
	c := start(t)
	s := c.open(t, kafka.Config{Timeout: time.Second})
	gate := make(chan struct{})
	var requests atomic.Int64
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		if requests.Add(1) == 1 {
			c.SleepControl(func() { <-gate })
		}
		return nil, nil, false
	})
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 20)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Deliver = %v", err)
	}
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 5)); err != nil {
		t.Fatal(err)
	}
	close(gate)
	within(t, "the late batch", func() bool { return c.held() == 25 })
	if err := s.Deliver(t.Context(), sinktest.Lines(6, 10)); err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), sinktest.Lines(11, 20)); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	got := slices.DeleteFunc(c.values(t), func(value string) bool {
		again := seen[value]
		seen[value] = true
		return again
	})
	if !slices.Equal(got, contents(sinktest.Lines(1, 20))) {
		t.Errorf("%d different lines, or in another order", len(got))
	}
}

func TestWhatTheBrokerSaysOfADelivery(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		answer *kerr.Error
		key    kmsg.Key
		is     error
	}{
		{kerr.MessageTooLarge, kmsg.Produce, follow.ErrTooLarge},
		{kerr.RecordListTooLarge, kmsg.Produce, follow.ErrTooLarge},
		{kerr.InvalidRecord, kmsg.Produce, follow.ErrRefused},
		{kerr.PolicyViolation, kmsg.Produce, nil},
		{kerr.TopicAuthorizationFailed, kmsg.Produce, nil},
		{kerr.InvalidRequiredAcks, kmsg.Produce, nil},
		{kerr.NotEnoughReplicas, kmsg.Produce, nil},
		{kerr.TopicAuthorizationFailed, kmsg.Metadata, nil},
		{kerr.ClusterAuthorizationFailed, kmsg.InitProducerID, nil},
	} {
		c := start(t)
		s := c.open(t, kafka.Config{Timeout: 5 * time.Second})
		fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{row.key}, Err: row.answer, Count: -1, TopLevel: row.key == kmsg.InitProducerID})
		began := time.Now()
		err := s.Deliver(t.Context(), sinktest.Lines(1, 3))
		if err == nil || err.Error() != "kafka: answered "+row.answer.Message && row.is == nil || !strings.Contains(err.Error(), row.answer.Message) {
			t.Errorf("%v to %s: %v", row.answer, row.key.Name(), err)
		}
		if row.is != nil && !errors.Is(err, row.is) || row.is == nil && (errors.Is(err, follow.ErrTooLarge) || errors.Is(err, follow.ErrRefused)) {
			t.Errorf("%v to %s: is of the wrong kind: %v", row.answer, row.key.Name(), err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%v to %s: took %s", row.answer, row.key.Name(), took)
		}
		fault.Remove()
		if err := s.Deliver(t.Context(), sinktest.Lines(1, 3)); err != nil {
			t.Errorf("after %v: %v", row.answer, err)
		}
	}
}

func TestALargeDeliveryIsForTheFollowerToHalve(t *testing.T) {
	c := start(t, kfake.BrokerConfigs(map[string]string{"message.max.bytes": "2000"}))
	s := c.open(t, kafka.Config{Compression: "none"})
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 20)); !errors.Is(err, follow.ErrTooLarge) {
		t.Errorf("more than the broker takes: %v", err)
	}
	line := sinktest.Line(1, 0)
	line.Text = []byte(`"` + strings.Repeat("x", 9<<20) + `"`)
	if err := s.Deliver(t.Context(), []follow.Line{line}); !errors.Is(err, follow.ErrTooLarge) {
		t.Errorf("more than the sink takes: %v", err)
	}
	if err := s.Deliver(t.Context(), make([]follow.Line, follow.MaxBatch+1)); !errors.Is(err, follow.ErrTooLarge) {
		t.Errorf("more lines than there are in a delivery: %v", err)
	}
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 2)); err != nil {
		t.Errorf("less: %v", err)
	}
	if err := s.Deliver(t.Context(), nil); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

func TestTheLargestDeliveryIsOneBatchToo(t *testing.T) {
	t.Parallel()
	c := start(t, kfake.BrokerConfigs(map[string]string{"message.max.bytes": strconv.Itoa(32 << 20)}))
	lines := sinktest.Lines(1, follow.MaxBatch)
	for i := range lines {
		lines[i].Text = fmt.Appendf(nil, `{"n":%d,"pad":%q}`, i, strings.Repeat("x", 640))
	}
	var requests atomic.Int64
	c.produced(func(*kmsg.ProduceRequest) { requests.Add(1) })
	for _, compression := range []string{"none", "zstd"} {
		if err := c.open(t, kafka.Config{Compression: compression}).Deliver(t.Context(), lines); err != nil {
			t.Errorf("%s: %v", compression, err)
		}
	}
	if got := c.held(); got != int64(2*len(lines)) || requests.Load() != 2 {
		t.Errorf("%d lines in %d batches", got, requests.Load())
	}
}

func TestTheClientSaysThatItIsMoat(t *testing.T) {
	said := make(chan string, 1)
	dial := func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer func() { _ = theirs.Close() }()
			// Size, kind, version and number of the request, then the name and its length.
			head := make([]byte, 4+2+2+4+2+len("moat"))
			_, err := io.ReadFull(theirs, head)
			select {
			case said <- fmt.Sprintf("%q, %v", head[4+2+2+4:], err):
			default:
			}
		}()
		return ours, nil
	}
	s := cluster{}.open(t, kafka.Config{Dial: dial, Timeout: time.Second})
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err == nil {
		t.Error("delivered to nobody")
	}
	if got := <-said; got != `"\x00\x04moat", <nil>` {
		t.Errorf("said %s", got)
	}
}

func TestATopicIsNeverCreated(t *testing.T) {
	c := start(t, kfake.AllowAutoTopicCreation())
	s := c.open(t, kafka.Config{Topic: "another", Timeout: 5 * time.Second})
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err == nil || !strings.Contains(err.Error(), "UNKNOWN_TOPIC_OR_PARTITION") {
		t.Errorf("Deliver = %v", err)
	}
	if c.TopicInfo("another") != nil {
		t.Error("the topic was created")
	}
}

func TestATopicThatIsRemovedAndMadeAgainIsWrittenTo(t *testing.T) {
	t.Parallel()
	c := start(t)
	s := c.open(t, kafka.Config{Timeout: 3 * time.Second})
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteTopic(topic); err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), sinktest.Lines(2, 2)); err == nil {
		t.Error("delivered into nothing")
	}
	if err := c.CreateTopic(topic, partitions, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), sinktest.Lines(2, 2)); err != nil {
		t.Error(err)
	}
	if got := c.values(t); !slices.Equal(got, contents(sinktest.Lines(2, 2))) {
		t.Errorf("%d lines", len(got))
	}
}

func TestBrokersThatHangDoNotKeepTheOthersFromBeingAsked(t *testing.T) {
	t.Parallel()
	c := start(t)
	proxy, address := proxied(t, c)
	proxy.Set(sinktest.HalfOpen)
	dial := func(ctx context.Context, network, at string) (net.Conn, error) {
		if at == "127.0.0.1:9092" {
			return to(c.socket)(ctx, network, at)
		}
		return to(address)(ctx, network, at)
	}
	brokers := []string{"127.0.0.2:9092", "127.0.0.3:9092", "127.0.0.4:9092", "127.0.0.5:9092", "127.0.0.1:9092"}
	s := c.open(t, kafka.Config{Brokers: brokers, Dial: dial, Timeout: 500 * time.Millisecond})
	for range brokers {
		if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err == nil {
			return
		}
	}
	t.Error("the broker that works was not found")
}

func TestAFailureCostsTheBudgetAndNoMore(t *testing.T) {
	t.Parallel()
	c := start(t)
	s := c.open(t, kafka.Config{Timeout: 500 * time.Millisecond})
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: -1})
	began := time.Now()
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err == nil {
		t.Error("delivered")
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Deliver(ctx, sinktest.Lines(1, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestErrorsCarryNoSecretAndNothingIsLeftRunning(t *testing.T) {
	c := start(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "planted-user", "planted-secret"))
	before := runtime.NumGoroutine()
	t.Run("faults", func(t *testing.T) {
		proxy, address := proxied(t, c)
		s := c.open(t, kafka.Config{Dial: to(address), Timeout: 300 * time.Millisecond,
			Mechanism: "scram-sha-256", Username: "planted-user", Password: "planted-secret"})
		for _, fault := range []sinktest.Fault{sinktest.HalfOpen, sinktest.Refuse, sinktest.Malformed} {
			for _, connected := range []bool{false, true} {
				proxy.Set(sinktest.Healthy)
				if connected {
					if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil {
						t.Fatal(err)
					}
				}
				proxy.Set(fault)
				err := s.Deliver(t.Context(), sinktest.Lines(2, 2))
				if err == nil || strings.Contains(err.Error(), "planted") || strings.Contains(err.Error(), "~}|") {
					t.Errorf("%s: %v", fault, err)
				}
				// A client that had a connection tries until the budget is used up.
				if connected && fault != sinktest.HalfOpen && !strings.Contains(err.Error(), "deadline exceeded: ") {
					t.Errorf("%s: does not say what happened: %v", fault, err)
				}
				within(t, "the end of all connections", func() bool { return proxy.Connections() == 0 })
			}
		}
		proxy.Set(sinktest.Healthy)
		if err := s.Deliver(t.Context(), sinktest.Lines(2, 2)); err != nil {
			t.Error(err)
		}
	})
	within(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

func BenchmarkDeliver(b *testing.B) {
	for _, compression := range []string{"zstd", "lz4", "snappy", "gzip", "none"} {
		b.Run(compression, func(b *testing.B) {
			c := start(b, kfake.BlackholeProduce())
			var size int
			c.produced(func(req *kmsg.ProduceRequest) { size = len(req.Topics[0].Partitions[0].Records) })
			s := c.open(b, kafka.Config{Compression: compression})
			lines := sinktest.Lines(1, 256)
			if err := s.Deliver(b.Context(), lines); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Deliver(b.Context(), lines); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(size), "batch-bytes")
		})
	}
}
