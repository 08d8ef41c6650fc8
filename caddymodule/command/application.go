package command

import (
	"encoding/json"
	"net"
	"net/http"
	"time"
)

// startApplication serves the built-in application on a free loopback port: it
// shows what an application behind the gate gets to see.
func startApplication() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := &http.Server{Handler: http.HandlerFunc(application), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }() // It ends with the process.
	return "http://" + l.Addr().String(), nil
}

func application(w http.ResponseWriter, r *http.Request) {
	seen := map[string]string{"method": r.Method, "path": r.URL.Path}
	for _, name := range []string{"X-User-Id", "X-Tenant-Id", "X-Roles", "X-Request-Id"} {
		if value := r.Header.Get(name); value != "" {
			seen[name] = value
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(seen) // The client may be gone.
}
