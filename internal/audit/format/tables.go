package format

import "github.com/moat-gateway/moat/internal/audit"

// otherActivity says that a class of OCSF has no number for an activity. Its name is
// then that of the source.
const otherActivity = 99

// activity is what OCSF calls an activity of a class.
type activity struct {
	id   int64
	name string
}

// methodActivity is the activity of HTTP Activity for the request.
func methodActivity(e *event) activity {
	name := e.text(method)
	if len(name) == 0 {
		return activity{}
	}
	if a, known := methods[string(name)]; known {
		return a
	}
	return activity{id: otherActivity}
}

// methods are the methods that OCSF numbers. Methods are case-sensitive.
var methods = map[string]activity{
	"CONNECT":           {1, "Connect"},
	"DELETE":            {2, "Delete"},
	"GET":               {3, "Get"},
	"HEAD":              {4, "Head"},
	"OPTIONS":           {5, "Options"},
	"POST":              {6, "Post"},
	"PUT":               {7, "Put"},
	"TRACE":             {8, "Trace"},
	"PATCH":             {9, "Patch"},
	"ACL":               {10, "ACL"},
	"BASELINE-CONTROL":  {11, "Baseline Control"},
	"BIND":              {12, "Bind"},
	"CHECKIN":           {13, "Check In"},
	"CHECKOUT":          {14, "Check Out"},
	"COPY":              {15, "Copy"},
	"LABEL":             {16, "Label"},
	"LINK":              {17, "Link"},
	"LOCK":              {18, "Lock"},
	"MERGE":             {19, "Merge"},
	"MKACTIVITY":        {20, "Make Activity"},
	"MKCALENDAR":        {21, "Make Calendar"},
	"MKCOL":             {22, "Make Collection"},
	"MKREDIRECTREF":     {23, "Make Redirect Reference"},
	"MKWORKSPACE":       {24, "Make Workspace"},
	"MOVE":              {25, "Move"},
	"ORDERPATCH":        {26, "Order Patch"},
	"PRI":               {27, "PRI"},
	"PROPFIND":          {28, "Property Find"},
	"PROPPATCH":         {29, "Property Patch"},
	"QUERY":             {30, "Query"},
	"REBIND":            {31, "Rebind"},
	"REPORT":            {32, "Report"},
	"SEARCH":            {33, "Search"},
	"UNBIND":            {34, "Unbind"},
	"UNCHECKOUT":        {35, "Un-Check Out"},
	"UNLINK":            {36, "Unlink"},
	"UNLOCK":            {37, "Unlock"},
	"UPDATE":            {38, "Update"},
	"UPDATEREDIRECTREF": {39, "Update Redirect Reference"},
	"VERSION-CONTROL":   {40, "Version Control"},
}

// disposition is what OCSF calls the result of a control.
type disposition struct {
	id   int64
	name string
}

// dispositionOf goes by the public code of a refusal: Unauthorized for who the
// caller is or what he may do, Rejected for a request that is not in order, Error
// where the gateway could not tell, else Blocked.
func dispositionOf(code string) disposition {
	switch code {
	case "token-missing", "token-invalid", "token-expired", "token-revoked", "forbidden":
		return disposition{26, "Unauthorized"}
	case "bad-request", "method-not-allowed", "content-too-large", "uri-too-long",
		"headers-too-large", "misdirected", "too-early":
		return disposition{25, "Rejected"}
	case "unavailable":
		return disposition{27, "Error"}
	}
	return disposition{2, "Blocked"}
}

// operation is what an action of no request is in the schemas.
type operation struct {
	// class is set where it is not Entity Management.
	class int64
	activity
	// entity is what OCSF is told about the kind of thing it was done to.
	entity string
	// category and kind are ECS's event.category and event.type.
	category, kind string
}

// operations are all actions that are written by the gateway itself. Those whose
// activity has no number are told by their name.
var operations = map[string]operation{
	"gateway.start": {lifecycleClass.uid, activity{3, "Start"}, "", "process", "start"},
	"gateway.stop":  {lifecycleClass.uid, activity{4, "Stop"}, "", "process", "end"},

	"config.loaded":   {0, activity{3, "Update"}, "Configuration", "configuration", "change"},
	"config.rejected": {0, activity{3, "Update"}, "Configuration", "configuration", "change"},
	"policy.loaded":   {0, activity{3, "Update"}, "Policy File", "configuration", "change"},
	"policy.rejected": {0, activity{3, "Update"}, "Policy File", "configuration", "change"},
	"keys.changed":    {0, activity{3, "Update"}, "Issuer Keys", "configuration", "change"},
	"limit.show":      {0, activity{2, "Read"}, "Limit", "configuration", "access"},
	"limit.reset":     {0, activity{3, "Update"}, "Limit", "configuration", "change"},

	"store.degraded":  {0, activity{11, "Deactivate"}, "Limit Store", "database", "error"},
	"store.recovered": {0, activity{10, "Activate"}, "Limit Store", "database", "info"},

	audit.ActionViolation: {0, activity{}, "Page", "web", "info"},

	"sink.failing":   {0, activity{11, "Deactivate"}, "Audit Sink", "process", "info"},
	"sink.recovered": {0, activity{10, "Activate"}, "Audit Sink", "process", "info"},
	"sink.lost":      {0, activity{}, "Audit Sink", "process", "info"},
	"sink.set-aside": {0, activity{}, "Audit Sink", "process", "info"},

	audit.ActionSegment:    {0, activity{1, "Create"}, "Audit Segment", "file", "creation"},
	audit.ActionRemoved:    {0, activity{4, "Delete"}, "Audit Segment", "file", "deletion"},
	audit.ActionKey:        {0, activity{3, "Update"}, "Checkpoint Key", "configuration", "change"},
	audit.ActionCheckpoint: {0, activity{}, "Audit Trail", "file", "info"},
	audit.ActionRecovered:  {0, activity{}, "Audit Trail", "file", "change"},
	audit.ActionGap:        {0, activity{}, "Audit Trail", "file", "info"},
}
