package denial

import (
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
)

// problem is an RFC 9457 document.
type problem struct {
	Type      string   `json:"type"`
	Title     string   `json:"title"`
	Status    int      `json:"status"`
	Code      string   `json:"code,omitempty"`
	RequestID string   `json:"requestId"`
	Violated  []string `json:"violated-policies,omitempty"`
	Reason    string   `json:"reason,omitempty"`
	Requires  []string `json:"requires,omitempty"`
}

var page = template.Must(template.New("refusal").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{.Status}} {{.Title}}</title>
<h1>{{.Title}}</h1>
<p>Status {{.Status}}{{with .Code}}, code {{.}}{{end}}.</p>
<p>Request {{.RequestID}}</p>
</html>
`))

// Write answers with the error's problem document, or with a short page when
// the request is a navigation that prefers HTML.
func Write(w http.ResponseWriter, r *http.Request, status int, err error) {
	ex := exchange.Ensure(w, r)
	p := problem{
		Type:      "about:blank",
		Title:     http.StatusText(status),
		Status:    status,
		RequestID: ex.RequestID,
	}
	var refusal *Refusal
	if errors.As(err, &refusal) {
		p.Code = refusal.Code.Name
		p.Type = "urn:moat:problem:" + p.Code
		p.Title = refusal.Code.Title
		if refusal.Detail != "" {
			p.Title = refusal.Detail
		}
		p.Violated = refusal.Violated
		if refusal.Revealed {
			p.Reason, p.Requires = refusal.Reason, refusal.Requires
		}
	}
	var body strings.Builder
	contentType := "application/problem+json"
	if PrefersHTML(r) {
		contentType = "text/html; charset=utf-8"
		err = page.Execute(&body, p)
	} else {
		var text []byte
		text, err = json.Marshal(p)
		body.Write(append(text, '\n'))
	}
	if err != nil { // Neither can fail on these types.
		body.Reset()
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	// A shared cache must not hand one caller's refusal to another.
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Encoding")
	h.Del("Etag")
	h.Del("Last-Modified")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(body.String())) // The client may be gone; nothing is left to tell it.
	}
}

// PrefersHTML reports whether the request is a navigation that prefers HTML
// over JSON: what a person in a browser sends, never what a script does.
func PrefersHTML(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost {
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" && mode != "navigate" {
		return false
	}
	html := quality(r.Header["Accept"], "text/html")
	return html > 0 && html >= quality(r.Header["Accept"], "application/json")
}

// quality is the weight that an Accept header gives to exactly this type;
// wildcards do not count, because every script sends one.
func quality(accept []string, mediaType string) float64 {
	for _, line := range accept {
		for part := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(part, ";")
			if !strings.EqualFold(strings.TrimSpace(name), mediaType) {
				continue
			}
			for param := range strings.SplitSeq(params, ";") {
				if value, ok := strings.CutPrefix(strings.TrimSpace(param), "q="); ok {
					q, err := strconv.ParseFloat(value, 64)
					if err != nil || q < 0 || q > 1 {
						return 0
					}
					return q
				}
			}
			return 1
		}
	}
	return 0
}
