package audit

import "strconv"

// Bounds of Details. What is beyond them is counted in the detail "truncated".
const (
	maxDetails      = 32
	maxDetailKey    = 64
	maxDetailText   = 1024
	maxDetailWords  = 64
	maxDetailWord   = 256
	maxDetailFields = 16
	maxDetailField  = 512
	maxDetailsBytes = 16 << 10

	// truncatedRoom is kept free for the "truncated" entry and the brace.
	truncatedRoom = 48
)

// Details is a short list of facts in the order in which they were set. The
// zero Details is empty and ready to use. A copy shares its entries with the
// original, so only one of the two may be changed.
type Details struct {
	list []detail
	lost int64
}

// Field is one value of a detail that is an object. Where Count is not 0, it is
// the number Count and not the text Value.
type Field struct {
	Name, Value string
	Count       int
}

type detail struct {
	key    string
	text   string
	words  []string
	fields []Field
	num    int64
	kind   detailKind
}

type detailKind uint8

const (
	textDetail detailKind = iota
	intDetail
	boolDetail
	wordsDetail
	fieldsDetail
)

// Set adds a fact or replaces the one of the same key. A value is a string, an
// int, an int64, a bool, a []string or a []Field; lists are not copied, and names
// of fields must differ. A value of another type is recorded as "unsupported value", so that no text that was never
// meant for the trail gets there by formatting. An event holds 32 details;
// further ones are only counted.
func (d *Details) Set(key string, value any) {
	entry := detail{key: key}
	switch v := value.(type) {
	case string:
		entry.text = v
	case int64:
		entry.kind, entry.num = intDetail, v
	case int:
		entry.kind, entry.num = intDetail, int64(v)
	case bool:
		entry.kind = boolDetail
		if v {
			entry.num = 1
		}
	case []string:
		entry.kind, entry.words = wordsDetail, v
	case []Field:
		entry.kind, entry.fields = fieldsDetail, v
	default:
		entry.text = "unsupported value"
	}
	d.put(entry)
}

func (d *Details) put(entry detail) {
	for i := range d.list {
		if d.list[i].key == entry.key {
			d.list[i] = entry
			return
		}
	}
	if len(d.list) >= maxDetails {
		d.lost++
		return
	}
	d.list = append(d.list, entry)
}

// Get returns the value of a key as it was set (an int comes back as int64),
// and whether there is one.
func (d *Details) Get(key string) (any, bool) {
	for i := range d.list {
		entry := &d.list[i]
		if entry.key != key {
			continue
		}
		switch entry.kind {
		case intDetail:
			return entry.num, true
		case boolDetail:
			return entry.num == 1, true
		case wordsDetail:
			return entry.words, true
		case fieldsDetail:
			return entry.fields, true
		default:
			return entry.text, true
		}
	}
	return nil, false
}

// Len returns the number of facts.
func (d *Details) Len() int { return len(d.list) }

// Reset forgets every fact and keeps the memory for the next ones.
func (d *Details) Reset() {
	clear(d.list)
	d.list, d.lost = d.list[:0], 0
}

// text returns the string set for a key without allocating.
func (d *Details) text(key string) (string, bool) {
	for i := range d.list {
		if d.list[i].key == key && d.list[i].kind == textDetail {
			return d.list[i].text, true
		}
	}
	return "", false
}

// appendJSON appends the object, at most maxDetailsBytes long. An entry that
// does not fit is left out whole and counted.
func (d *Details) appendJSON(dst []byte) []byte {
	start, lost := len(dst), d.lost
	dst = append(dst, '{')
	for i := range d.list {
		before := len(dst)
		if before > start+1 {
			dst = append(dst, ',')
		}
		dst = d.list[i].appendJSON(dst)
		if len(dst)-start > maxDetailsBytes-truncatedRoom {
			dst = dst[:before]
			lost++
		}
	}
	if lost > 0 {
		if len(dst) > start+1 {
			dst = append(dst, ',')
		}
		dst = append(dst, `"truncated":`...)
		dst = strconv.AppendInt(dst, lost, 10)
	}
	return append(dst, '}')
}

func (d *detail) appendJSON(dst []byte) []byte {
	dst = appendQuoted(dst, d.key, maxDetailKey)
	dst = append(dst, ':')
	switch d.kind {
	case intDetail:
		return strconv.AppendInt(dst, d.num, 10)
	case boolDetail:
		return strconv.AppendBool(dst, d.num == 1)
	case wordsDetail:
		return appendWords(dst, d.words, maxDetailWords, maxDetailWord)
	case fieldsDetail:
		return appendFields(dst, d.fields)
	default:
		return appendQuoted(dst, d.text, maxDetailText)
	}
}

// appendFields appends an object of the first fields.
func appendFields(dst []byte, fields []Field) []byte {
	dst = append(dst, '{')
	for i, f := range fields[:min(len(fields), maxDetailFields)] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendQuoted(dst, f.Name, maxDetailKey), ':')
		if f.Count != 0 {
			dst = strconv.AppendInt(dst, int64(f.Count), 10)
			continue
		}
		dst = appendQuoted(dst, f.Value, maxDetailField)
	}
	return append(dst, '}')
}
