package sinktest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// startBudget is how long a server may take until it answers.
const startBudget = 60 * time.Second

// server is a process in a short temporary directory of its own: the paths of
// unix sockets are limited to about a hundred bytes.
type server struct {
	dir     string
	cmd     *exec.Cmd
	exited  chan struct{}
	problem error
}

// launch starts cmd and waits until ready says so.
func (s *server) launch(cmd *exec.Cmd, ready func() error) error {
	log, err := os.Create(filepath.Clean(filepath.Join(s.dir, "server.log")))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.exited = cmd, make(chan struct{})
	go func() {
		s.problem = cmd.Wait()
		close(s.exited)
	}()
	deadline := time.NewTimer(startBudget)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("ended at once: %w\n%s", s.problem, s.log())
		case <-deadline.C:
			s.kill()
			return fmt.Errorf("not ready after %s: %w\n%s", startBudget, err, s.log())
		case <-tick.C:
		}
	}
}

func (s *server) log() string {
	raw, err := os.ReadFile(filepath.Clean(filepath.Join(s.dir, "server.log")))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(raw[max(0, len(raw)-4<<10):]))
}

// kill ends the process at once and waits until it is gone.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
	s.cmd = nil
}

// Redis is a redis-server of the test's own, reachable by a unix socket only
// and without anything on disk.
type Redis struct {
	// Socket is the path of its unix socket.
	Socket string

	server
}

// StartRedis starts a redis-server. The caller stops it.
func StartRedis() (*Redis, error) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("sinktest: the tests need redis-server (Debian package redis-server): %w", err)
	}
	dir, err := os.MkdirTemp("", "moat-r")
	if err != nil {
		return nil, err
	}
	r := &Redis{Socket: filepath.Join(dir, "r.sock"), server: server{dir: dir}}
	cmd := exec.Command(binary, "--port", "0", "--unixsocket", r.Socket, "--save", "", "--appendonly", "no", "--dir", dir) //nolint:gosec // a test's own server
	cmd.SysProcAttr = attributes()
	if err := r.launch(cmd, r.ping); err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("sinktest: redis-server: %w", err)
	}
	return r, nil
}

func (r *Redis) ping() error {
	conn, err := net.DialTimeout("unix", r.Socket, time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && answer != "+PONG\r\n" {
		err = fmt.Errorf("answered %q", answer)
	}
	return err
}

// Stop ends the server and removes its files.
func (r *Redis) Stop() error {
	r.kill()
	return os.RemoveAll(r.dir)
}

// Postgres is a PostgreSQL of the test's own, reachable by a unix socket only.
type Postgres struct {
	// Dir is the directory of its unix socket, ".s.PGSQL.5432".
	Dir string
	// User is its superuser, who needs no password.
	User string

	program string
	owner   *syscall.SysProcAttr

	server
}

// PostgresSocket is the file name of PostgreSQL's socket in its directory.
const PostgresSocket = ".s.PGSQL.5432"

// StartPostgres creates a database cluster and starts it, as the system's user
// postgres when the test runs as root. The caller stops it.
func StartPostgres() (*Postgres, error) {
	p, err := startPostgres()
	if err != nil {
		return nil, fmt.Errorf("sinktest: the tests need PostgreSQL (Debian package postgresql): %w", err)
	}
	return p, nil
}

func startPostgres() (_ *Postgres, err error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "moat-p")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	attr, err := postgresOwner(dir)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "--pgdata", data, "--username", "postgres", "--auth", "trust", //nolint:gosec // a test's own server
		"--encoding", "UTF8", "--locale", "C", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = dir, attr
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	p := &Postgres{Dir: dir, User: "postgres", program: filepath.Join(bin, "postgres"), owner: attr, server: server{dir: dir}}
	return p, p.Start()
}

// Start starts the server, which is one that was halted.
func (p *Postgres) Start() error {
	cmd := exec.Command(p.program, "-D", filepath.Join(p.Dir, "data"), "-k", p.Dir, "-c", "listen_addresses=", //nolint:gosec // a test's own server
		"-c", "fsync=off", "-c", "max_connections=50", "-c", "shared_buffers=8MB")
	cmd.Dir, cmd.SysProcAttr = p.Dir, p.owner
	if err := p.launch(cmd, p.greet); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return nil
}

// greet asks for a session, which is granted once the server takes work.
func (p *Postgres) greet() error {
	conn, err := net.DialTimeout("unix", filepath.Join(p.Dir, PostgresSocket), time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	const wanted = "\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00" // protocol 3.0
	if _, err := conn.Write(append([]byte{0, 0, 0, byte(4 + len(wanted))}, wanted...)); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadByte()
	if err == nil && answer != 'R' {
		err = fmt.Errorf("answered %q", answer)
	}
	return err
}

// postgresBin finds the directory of the server's programs, which Debian keeps
// out of the search path.
func postgresBin() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		// A link to it says nothing about its companions.
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), nil
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", errors.New("no initdb in the search path nor in /usr/lib/postgresql/*/bin")
	}
	return filepath.Dir(found[len(found)-1]), nil
}

// Halt ends the server and keeps its files.
func (p *Postgres) Halt() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(fastShutdown)
	select {
	case <-p.exited:
	case <-time.After(startBudget):
	}
	p.kill()
}

// Stop ends the server and removes its files.
func (p *Postgres) Stop() error {
	p.Halt()
	return os.RemoveAll(p.dir)
}
