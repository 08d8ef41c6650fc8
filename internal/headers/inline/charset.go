package inline

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// Charset is what is certain about how browsers read the bytes of a page.
type Charset uint8

// Charsets. The zero value trusts the page least.
const (
	// Guessed: neither the Content-Type nor a byte order mark names the charset.
	// Browsers take it from a meta tag, wherever it stands, or from the looks of
	// the text, so that whoever can add to the page can choose it.
	Guessed Charset = iota
	// Named: the Content-Type names a superset of ASCII other than UTF-8.
	Named
	// UTF8: the Content-Type or a byte order mark names UTF-8.
	UTF8
)

// escape begins every switch of ISO-2022-JP to another character set.
const escape = 0x1b

// watch looks for the first escape of a page whose charset is guessed. Behind it
// ISO-2022-JP reads two bytes as one character, whatever they are: a quote that
// the rewriter sees may be half of a letter, and a letter's half a quote. With
// pins nothing gets the nonce from there on.
//
// That suffices for every charset that a guess can lead to (the Encoding
// standard, "get an encoding" and the decoders):
//
//   - ISO-2022-JP begins in its ASCII state, and only an escape leaves it. Up to
//     the first one all bytes below 0x80 are themselves, and the others are
//     errors of one byte each.
//   - The second byte of a character is 0x40 to 0x7E or above 0x80 in GBK, Big5
//     and Shift_JIS, at least 0x41 in EUC-KR and above 0xA0 in EUC-JP; GB 18030
//     has digits as well, 0x30 to 0x39. No control character, space or quote, and
//     none of < > = / & - ! ? is among them, and decoders give back a byte below
//     0x80 that does not fit. So tags, attributes and their ends are where the
//     bytes have them. What can be swallowed is a letter, a digit, a backslash or
//     a bracket behind a byte that is not ASCII: obscure refuses what has such a
//     byte where it counts, and cdata looks out for the bracket.
//   - HZ, ISO-2022-KR and ISO-2022-CN are labels of the replacement encoding: of
//     such a page browsers read nothing. UTF-7 and UTF-32 are no labels.
//   - UTF-16 in a meta tag means UTF-8. Were it guessed, the nonce, which is
//     added in ASCII, would be read as other letters and allow nothing.
func (r *Rewriter) watch(b []byte) {
	if r.cfg.Charset != Guessed || r.escaped > 0 {
		return
	}
	if n := bytes.IndexByte(b, escape); n >= 0 {
		r.escaped = r.off + int64(n) + 1
	}
}

// switched reports whether browsers may read what stands before end in another
// charset than ASCII's supersets.
func (r *Rewriter) switched(end int64) bool { return r.escaped > 0 && r.escaped <= end }

// obscure reports whether bytes do not say what text browsers make of them. A
// script is pinned by its bytes, and the same bytes are another script in
// another charset: in Shift_JIS, 0x83 and a backslash are one letter, and the
// quote behind the backslash ends a string. Browsers hash the text in UTF-8,
// so that a hash of other bytes is of no use to them; where the charset is
// guessed, a wrong guess only keeps the script from running.
func (r *Rewriter) obscure(text []byte) bool {
	if ascii(text) {
		return false
	}
	hashing := r.collect != nil
	switch r.cfg.Charset {
	case UTF8:
		return hashing && !utf8.Valid(text)
	case Guessed:
		return !hashing || !utf8.Valid(text)
	case Named:
	}
	return true
}

func ascii(text []byte) bool {
	for _, c := range text {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
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

// utf8Labels are the labels of UTF-8 in the Encoding standard.
var utf8Labels = words(`unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8`)

// supersets are the labels of the Encoding standard that name a superset of
// ASCII other than UTF-8. The list is exact: browsers ignore a label that is
// not in the standard, and guess.
var supersets = words(`
	866 cp866 csibm866 ibm866
	csisolatin2 iso-8859-2 iso-ir-101 iso8859-2 iso88592 iso_8859-2 iso_8859-2:1987 l2 latin2
	csisolatin3 iso-8859-3 iso-ir-109 iso8859-3 iso88593 iso_8859-3 iso_8859-3:1988 l3 latin3
	csisolatin4 iso-8859-4 iso-ir-110 iso8859-4 iso88594 iso_8859-4 iso_8859-4:1988 l4 latin4
	csisolatincyrillic cyrillic iso-8859-5 iso-ir-144 iso8859-5 iso88595 iso_8859-5 iso_8859-5:1988
	arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6 iso-8859-6-e iso-8859-6-i
	iso-ir-127 iso8859-6 iso88596 iso_8859-6 iso_8859-6:1987
	csisolatingreek ecma-118 elot_928 greek greek8 iso-8859-7 iso-ir-126 iso8859-7 iso88597 iso_8859-7
	iso_8859-7:1987 sun_eu_greek
	csiso88598e csisolatinhebrew hebrew iso-8859-8 iso-8859-8-e iso-ir-138 iso8859-8 iso88598 iso_8859-8
	iso_8859-8:1988 visual csiso88598i iso-8859-8-i logical
	csisolatin6 iso-8859-10 iso-ir-157 iso8859-10 iso885910 l6 latin6
	iso-8859-13 iso8859-13 iso885913 iso-8859-14 iso8859-14 iso885914
	csisolatin9 iso-8859-15 iso8859-15 iso885915 iso_8859-15 l9 iso-8859-16
	cskoi8r koi koi8 koi8-r koi8_r koi8-ru koi8-u
	csmacintosh mac macintosh x-mac-roman x-mac-cyrillic x-mac-ukrainian
	dos-874 iso-8859-11 iso8859-11 iso885911 tis-620 windows-874
	cp1250 windows-1250 x-cp1250 cp1251 windows-1251 x-cp1251
	ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591 iso_8859-1
	iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252
	cp1253 windows-1253 x-cp1253
	cp1254 csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9 iso_8859-9:1989 l5 latin5
	windows-1254 x-cp1254
	cp1255 windows-1255 x-cp1255 cp1256 windows-1256 x-cp1256 cp1257 windows-1257 x-cp1257
	cp1258 windows-1258 x-cp1258
	chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 gbk iso-ir-58 x-gbk gb18030
	big5 big5-hkscs cn-big5 csbig5 x-x-big5
	cseucpkdfmtjapanese euc-jp x-euc-jp
	csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j x-sjis
	cseuckr csksc56011987 euc-kr iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 windows-949`)

func words(text string) map[string]bool { return set(strings.Fields(text)...) }
