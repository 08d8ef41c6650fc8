package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// settleTimeout is far more than the three seconds a cluster or a failover
// takes, for busy machines.
const settleTimeout = 20 * time.Second

// Command sends one command on a connection of its own and returns the answer:
// of an array the elements, one a line. No answer or an error fails the test,
// and so does a server that wants a password or TLS.
func (s *Server) Command(words ...string) string {
	s.tb.Helper()
	answer, err := s.ask(words...)
	if err != nil {
		s.tb.Fatalf("redis-server at %s: %s: %v", s.addr, strings.Join(words, " "), err)
	}
	return answer
}

// ask is Command for a server that may be away.
func (s *Server) ask(words ...string) (string, error) {
	conn, err := net.DialTimeout(s.network, s.addr, time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(settleTimeout)); err != nil {
		return "", err
	}
	request := fmt.Sprintf("*%d\r\n", len(words))
	for _, word := range words {
		request += fmt.Sprintf("$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return "", err
	}
	return readAnswer(bufio.NewReader(conn))
}

func readAnswer(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return "", errors.New("empty line for an answer")
	}
	mark, rest := line[0], line[1:]
	switch mark {
	case '+', ':':
		return rest, nil
	case '-':
		return "", errors.New(rest)
	}
	size, err := strconv.Atoi(rest)
	switch {
	case err != nil:
		return "", err
	case mark == '$':
		return readBulk(r, size)
	case mark == '*':
		return readArray(r, size)
	}
	return "", fmt.Errorf("unknown answer %q", line)
}

func readBulk(r *bufio.Reader, size int) (string, error) {
	if size < 0 {
		return "", nil
	}
	bulk := make([]byte, size+len("\r\n"))
	_, err := io.ReadFull(r, bulk)
	return string(bulk[:size]), err
}

func readArray(r *bufio.Reader, size int) (string, error) {
	var lines []string
	for range size {
		line, err := readAnswer(r)
		if err != nil {
			return "", err
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n"), nil
}

// await asks until the answer is accepted. Waiting for other processes, there
// is nothing to be notified by.
func (s *Server) await(what string, accept func(answer string) bool, words ...string) {
	s.tb.Helper()
	for deadline := time.Now().Add(settleTimeout); ; {
		answer, err := s.ask(words...)
		if err == nil && accept(answer) {
			return
		}
		if time.Now().After(deadline) {
			s.tb.Fatalf("redis-server at %s: %s: not within %s: error %v, last answer\n%s", s.addr, what, settleTimeout, err, answer)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// hasAll accepts an answer with all of the lines in it.
func hasAll(lines ...string) func(string) bool {
	return func(answer string) bool {
		answer = "\n" + strings.ReplaceAll(answer, "\r\n", "\n") + "\n"
		for _, line := range lines {
			if !strings.Contains(answer, "\n"+line+"\n") {
				return false
			}
		}
		return true
	}
}

func splitAddr(tb testing.TB, addr string) (host, port string) {
	tb.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		tb.Fatal(err)
	}
	return host, port
}

func addrs(servers []*Server) string {
	var list []string
	for _, s := range servers {
		list = append(list, s.addr)
	}
	return strings.Join(list, ",")
}
