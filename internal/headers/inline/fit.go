package inline

import (
	"bytes"
	"mime"
	"strconv"
	"strings"
)

// prescan is how far browsers look for a charset in a page.
const prescan = 1024

// Fit says whether a body may be rewritten, and if not, why. first is how the
// body begins, at best its first 1024 bytes; a Content-Encoding must be undone
// before.
//
// Only text/html is fit. XHTML is XML: its scripts are markup, and an attribute
// that stands twice makes browsers show an error instead of the page. The
// charset must be one in which every byte below 0x80 that HTML is made of is
// that character and nothing else. Where the header names none, browsers look
// for a meta tag or guess; a guess can only lead to such a charset, or to
// ISO-2022-JP, which has escape characters.
func Fit(contentType string, first []byte) (ok bool, why string) {
	kind, params, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
		return false, "the Content-Type is missing or malformed"
	case kind != "text/html":
		return false, "the body is " + strconv.Quote(clip(kind)) + ", not text/html"
	}
	if why := unfitBeginning(first); why != "" {
		return false, why
	}
	if label, named := params["charset"]; named {
		why = unfitCharset(label)
		return why == "", why
	}
	why = unfitGuess(first[:min(len(first), prescan)])
	return why == "", why
}

// unfitBeginning knows the byte order marks, which win over every header, and
// what a page in UTF-16 begins with otherwise.
func unfitBeginning(first []byte) string {
	for _, mark := range []string{"\xfe\xff", "\xff\xfe", "\x00", "<\x00"} {
		if bytes.HasPrefix(first, []byte(mark)) {
			return "the body begins like UTF-16 or UTF-32"
		}
	}
	return ""
}

// unfitGuess knows where a browser that guesses may find a charset of the wrong
// kind.
func unfitGuess(first []byte) string {
	if bytes.IndexByte(first, 0x1b) >= 0 {
		return "no charset is named and the body has escape characters"
	}
	text := strings.ToLower(string(first))
	for {
		_, rest, found := strings.Cut(text, "charset")
		if !found {
			return ""
		}
		text = rest
		value, assigned := strings.CutPrefix(strings.TrimLeft(rest, " \t\r\n\f"), "=")
		if !assigned {
			continue
		}
		value = strings.TrimLeft(value, " \t\r\n\f\"'")
		label := value[:len(value)-len(strings.TrimLeft(value, labelBytes))]
		if switching(label) {
			return "charset " + strconv.Quote(clip(label)) + " is not a superset of ASCII"
		}
	}
}

const labelBytes = "abcdefghijklmnopqrstuvwxyz0123456789-_:."

// unfitCharset says why a charset of the header is not fit. One that is not
// known is ignored by browsers, which guess then.
func unfitCharset(label string) string {
	label = strings.ToLower(strings.TrimSpace(label))
	switch {
	case switching(label):
		return "charset " + strconv.Quote(clip(label)) + " is not a superset of ASCII"
	case !superset(label):
		return "charset " + strconv.Quote(clip(label)) + " is not known"
	}
	return ""
}

// switching reports whether bytes below 0x80 may be parts of other characters:
// two or four bytes each, or after an escape. Browsers read a meta tag's UTF-16
// as UTF-8; nothing is lost by refusing it.
func switching(label string) bool {
	for _, prefix := range []string{
		"utf-16", "utf16", "utf-32", "utf32", "utf-7", "utf7", "ucs-", "ucs2", "unicodefeff", "unicodefffe", "unicode-1-1-utf-7",
		"iso-10646-ucs", "csunicode", "iso-2022-", "csiso2022", "hz-gb", "ebcdic", "cp037", "ibm037", "replacement",
	} {
		if strings.HasPrefix(label, prefix) {
			return true
		}
	}
	return label == "unicode" || label == "hz"
}

// superset reports whether the label is one of a charset that is fit. The
// second byte of a character in GBK, Big5, Shift_JIS, EUC-KR and EUC-JP is 0x40
// or above, and the digits of GB 18030 are digits: none can be a space, a
// quote, or one of < > = / & - !, and decoders give back such a byte behind a
// broken character. It can be a letter, but then the name it stands in is not
// ASCII anyway; or ']', for which the end of a CDATA section looks out.
func superset(label string) bool {
	for _, prefix := range []string{
		"iso-8859-", "iso8859-", "iso8859", "iso_8859-", "windows-125", "x-cp125", "cp125", "koi8-", "koi8_",
	} {
		rest, ok := strings.CutPrefix(label, prefix)
		if ok && rest != "" && len(rest) <= 8 {
			return true
		}
	}
	return supersets[label]
}

var supersets = set("utf-8", "utf8", "unicode-1-1-utf-8", "x-unicode20utf8", "us-ascii", "ascii", "ansi_x3.4-1968",
	"latin1", "latin2", "latin3", "latin4", "latin5", "latin6", "l1", "l2", "l3", "l4", "l5", "l6", "l9",
	"cp819", "ibm819", "cp866", "866", "ibm866", "windows-874", "tis-620", "dos-874", "macintosh", "mac", "x-mac-roman",
	"x-mac-cyrillic", "x-mac-ukrainian", "koi", "koi8", "cyrillic", "greek", "greek8", "hebrew", "visual", "logical", "arabic",
	"gbk", "x-gbk", "gb2312", "gb_2312", "gb_2312-80", "chinese", "gb18030", "big5", "big5-hkscs", "cn-big5", "x-x-big5",
	"euc-jp", "x-euc-jp", "shift_jis", "shift-jis", "sjis", "x-sjis", "ms_kanji", "windows-31j", "ms932",
	"euc-kr", "ks_c_5601-1987", "ksc5601", "ksc_5601", "korean", "windows-949")

// clip bounds what an upstream says about itself.
func clip(s string) string {
	const limit = 40
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}
