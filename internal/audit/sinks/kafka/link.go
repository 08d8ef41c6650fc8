package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

const (
	// maxAnswer bounds one answer of a broker, in bytes.
	maxAnswer = 4 << 20
	// attempts is how often a broker's refusal that may pass is borne within one
	// delivery. The follower comes again anyway, and later.
	attempts = 4
	// maxPause bounds the wait between two attempts within one delivery.
	maxPause = 500 * time.Millisecond
)

// options are the client's settings that stay the same for every link.
//
// The client begins to send only while it is flushed, and one batch holds the
// largest delivery, so a client's first delivery is one batch for each partition.
// A later one may be cut in two by a sender that still runs: by then the broker
// knows the producer, and refuses a batch whose predecessor it has not.
func options(cfg Config, s settings) []kgo.Opt {
	wait := max(100*time.Millisecond, cfg.Timeout/3) // a broker that hangs leaves time for another
	opts := []kgo.Opt{
		kgo.ClientID("moat"),
		kgo.DefaultProduceTopic(cfg.Topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ManualFlushing(),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ProducerBatchCompression(s.codec, kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(maxDelivery + overhead),
		kgo.BrokerMaxWriteBytes(2 * maxDelivery),
		kgo.BrokerMaxReadBytes(maxAnswer),
		kgo.FetchMaxBytes(maxAnswer), // nothing is fetched, but it must not exceed the line above
		kgo.MaxBufferedRecords(follow.MaxBatch),
		kgo.MaxBufferedBytes(maxDelivery),
		kgo.ProduceRequestTimeout(max(100*time.Millisecond, cfg.Timeout)),
		kgo.RequestTimeoutOverhead(wait),
		kgo.RetryTimeout(cfg.Timeout),
		kgo.RequestRetries(attempts),
		kgo.RecordRetries(attempts),
		kgo.UnknownTopicRetries(attempts),
		kgo.RetryBackoffFn(pause),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.DisableClientMetrics(),
		kgo.Dialer(dialer(cfg, s.tls, wait)),
	}
	if s.mechanism != nil {
		opts = append(opts, kgo.SASL(s.mechanism))
	}
	return opts
}

// pause is the wait after a failed attempt.
func pause(failures int) time.Duration {
	return min(maxPause, 25*time.Millisecond<<min(failures, 10))
}

// errExposed says that a broker led to where the password must not go.
var errExposed = errors.New("the cluster names a broker off this machine, which must not get the password unencrypted")

// dialer opens connections within wait, with TLS unless config is nil.
func dialer(cfg Config, config *tls.Config, wait time.Duration) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		// The addresses after the first come from the network.
		if cfg.exposed() && !isLocal(address) {
			return nil, errExposed
		}
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		socket, err := cfg.Dial(ctx, network, address)
		if err != nil || config == nil {
			return socket, err
		}
		return secure(ctx, socket, config, address)
	}
}

func secure(ctx context.Context, socket net.Conn, config *tls.Config, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		_ = socket.Close()
		return nil, err
	}
	config = config.Clone()
	config.ServerName = host
	conn := tls.Client(socket, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = socket.Close()
		return nil, err
	}
	return conn, nil
}

// link is a client of the cluster with what it says about itself. It ends with
// the first delivery that fails.
type link struct {
	client *kgo.Client

	mu      sync.Mutex
	trouble error         // the last failure of a connection
	missing int           // records of the delivery that have no partition yet
	placed  chan struct{} // closed when there are none
}

// connect makes a link that has not connected to anything yet.
func connect(opts []kgo.Opt, broker string) (*link, error) {
	l := &link{}
	client, err := kgo.NewClient(append(opts[:len(opts):len(opts)], kgo.SeedBrokers(broker), kgo.WithHooks(l))...)
	l.client = client
	return l, err
}

// prepare asks for what a delivery needs, in an order that gives each problem
// its own answer: a way to the cluster, the topic, the right to produce.
func (l *link) prepare(ctx context.Context, topic string) error {
	wanted := kmsg.NewMetadataRequestTopic()
	wanted.Topic = &topic
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = append(req.Topics, wanted)
	answer, err := req.RequestWith(ctx, l.client)
	if err != nil {
		return err
	}
	for _, t := range answer.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return err
		}
	}
	_, _, err = l.client.ProducerID(ctx)
	return err
}

// send hands over the records and waits until all are acknowledged. After an
// error the link must be closed: records may still be on their way.
func (l *link) send(ctx context.Context, records []kgo.Record) error {
	placed := l.expect(len(records))
	f := &failure{happened: make(chan struct{})}
	note := f.note
	for i := range records {
		l.client.Produce(ctx, &records[i], note)
	}
	// The first delivery has to wait for the partitions. Flushing before that
	// would send the records one by one as they are placed, and flushing what
	// is left after some have failed would leave a gap.
	select {
	case <-placed:
	case <-f.happened:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := l.client.Flush(ctx); err != nil {
		return err
	}
	select {
	case <-f.happened:
		return f.err
	default:
		return nil
	}
}

// expect returns a channel that is closed once n records have a partition.
func (l *link) expect(n int) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble, l.missing, l.placed = nil, n, make(chan struct{})
	return l.placed
}

// OnProduceRecordPartitioned is called by the client for each record.
func (l *link) OnProduceRecordPartitioned(*kgo.Record, int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.missing--; l.missing == 0 {
		close(l.placed)
	}
}

// OnBrokerConnect is called by the client for each connection.
func (l *link) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	l.note(err)
}

// OnBrokerWrite is called by the client for each request.
func (l *link) OnBrokerWrite(_ kgo.BrokerMetadata, _ int16, _ int, _, _ time.Duration, err error) {
	l.note(err)
}

// OnBrokerRead is called by the client for each answer.
func (l *link) OnBrokerRead(_ kgo.BrokerMetadata, _ int16, _ int, _, _ time.Duration, err error) {
	l.note(err)
}

func (l *link) note(err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble = err
}

// last returns the last failure of a connection during the delivery.
func (l *link) last() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trouble
}

// failure is why the first record of a delivery failed.
type failure struct {
	once     sync.Once
	err      error // set before happened is closed
	happened chan struct{}
}

func (f *failure) note(_ *kgo.Record, err error) {
	if err == nil {
		return
	}
	f.once.Do(func() {
		f.err = err
		close(f.happened)
	})
}
