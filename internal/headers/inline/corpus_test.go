package inline_test

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/moat-gateway/moat/internal/headers/inline"
)

const nonce = "AAAAAAAAAAAAAAAAAAAAAA"

// added is what the rewriter inserts.
const added = ` nonce="` + nonce + `"`

// nasty are pages with a '§' where a nonce belongs.
var nasty = map[string]string{
	"nothing":                   "",
	"text":                      "a < b && c > d <1 <",
	"script":                    "<script§>1</script>",
	"style":                     "<p><style§ media=x>a{}</style>",
	"link":                      "<link rel=stylesheet href=a>",
	"case":                      "<ScRiPt§ SRC=a></sCRIPT ><STYLE§>x</STYLE>",
	"longer name":               "<scripts>1</scripts><script-x></script-x><styles><script\x00>",
	"shorter name":              "<scrip><s><st><styl></styl>",
	"slash":                     "<script§/src=x></script>",
	"self-closing":              "<script§/>1</script><style§ />x</style>",
	"line breaks":               "<script§\r\n\tsrc\f=\r\n a\n></script\n><script§>1</script>",
	"quoted end":                `<script§ a="></script>" b='>' c=">">1</script>`,
	"unquoted quotes":           `<script§ a=b"c d='>' e=/>1</script>`,
	"name with quotes":          `<p "><script§>1</script>`,
	"equals sign first":         `<p ="><script§>1</script>`,
	"no value":                  `<p a= ><script§>1</script><p a=><script§>1</script>`,
	"tag in attribute":          `<p a="<script>"><p a='<script>'><script§>1</script>`,
	"tag in unquoted attribute": `<p a=<script>><script§>1</script>`,
	"tag as attribute name":     `<p <script><script§>1</script>`,
	"end tag attributes":        `</p a="<script>"><script§>1</script a="<script>"><script§></script>`,
	"end of nothing":            `</><script§></script></ a<script></ ><script§></script>`,
	"comment":                   "<!-- <script> --><script§></script>",
	"comment short":             "<!--><script§></script><!---><script§></script><!----><script§></script>",
	"comment bang":              "<!----!><script§></script><!-- --!><script§></script><!-- --!-><script>--><script§></script>",
	"comment dashes":            "<!-- ---><script§></script><!-- - -- -> --\n><script>--><script§></script>",
	"comment in comment":        "<!-- <!-- --><script§></script> --><!--<!--><script§></script>",
	"comment bang dash":         "<!----!-><script>--!--><script§></script>",
	"comment open":              "<!-- <script></script>",
	"bogus comments":            "<!a <script><script§></script><?x <script><script§></script></1 <script><script§></script>",
	"bogus dash":                "<!-><script§></script><!-a--><script§></script>",
	"doctype":                   `<!DOCTYPE html PUBLIC "><script§></script>`,
	"cdata in html":             "<![CDATA[ <script> ]]><script§></script>",
	"cdata in svg":              "<svg><![CDATA[ <script> ]] ]> ]]]><script§></script></svg>",
	"cdata in math":             "<math><![CDATA[<script>]]><style§></style></math>",
	"cdata behind svg":          "<svg></svg><![CDATA[><script§></script>]]>",
	"textarea":                  "<textarea><script></textarea ><script§></script>",
	"title":                     "<title><script></script></titl></title/><script§></script>",
	"xmp":                       "<xmp><script></xmpp></xmp><script§></script>",
	"iframe":                    "<iframe><script></iframe><script§></script>",
	"noembed":                   "<noembed><script></noembed><script§></script>",
	"noframes":                  "<noframes><script></noframes><script§></script>",
	"noscript":                  "<noscript><style></style></noscript><style§></style>",
	"plaintext":                 "<plaintext><script></plaintext><script>",
	"style holds script":        "<style§><script></style><script§></script>",
	"script holds style":        "<script§>'<style>'</script><style§></style>",
	"template":                  "<template><script§>1</script><style§></style></template>",
	"escaped":                   "<script§><!-- </script><script§>1</script>",
	"double escaped":            "<script§><!-- <script> </script><script> --></script><script§>1</script>",
	"double escaped ends":       "<script§><!-- <script> </script> </script><script§>1</script>",
	"double escaped dashes":     "<script§><!-- <script> --></script><script§>1</script>",
	"escaped at once":           "<script§><!--></script><script§>1</script><script§><!---></script><script§></script>",
	"escaped, then not":         "<script§><!--><script></script><script§>1</script>",
	"comment in double escaped": "<script§><!--<script><!--</script>'<script>'--></script><script§>1</script>",
	"not escaped":               "<script§><!-<script></script><script§>1</script><script§><!x<script></script><script§></script>",
	"escaped other word":        "<script§><!-- <scripts> </script><script§>1</script>",
	"escaped word broken":       "<script§><!-- <scr-ipt> <script1></script><script§>1</script>",
	"escaped slash":             "<script§><!-- <script/ </script/ </script><script§></script>",
	"escaped other end":         "<script§><!-- </scripts></scr></script><script§></script>",
	"double escaped other end":  "<script§><!--<script </scripts </scr--></script><script§></script>",
	"end tag of script at end":  "<script§></scr</script><script§>",
	"less-than before end tag":  "<script§><</script><style§><</style>",
	"end tag broken":            "<script§></script\x00></script></script><style§></style\v></style>",
	"NUL":                       "\x00<script\x00 a><script§ \x00a=\x00>\x00</script><\x00script>",
	"vertical tab":              "<script\v></script><script§></script>",
	"not ASCII":                 "<ſcript>ſ</ſcript><script§ ſrc=x>é</script\xc5\xbf></script><script\xff></script>",
	"svg":                       "<svg><script§>1</script><style§>a{}</style></svg><script§>1</script>",
	"svg is markup":             `<svg><style§><a title="</style><script>"/></style><script§></script></svg>`,
	"svg title":                 "<svg><title>x</title><desc>y</desc><style§></style></svg><title><script></title>",
	"svg self-closing":          "<svg/><style§><script></style><svg><script§/><style§/></svg><style§><svg></style><script§></script>",
	"svg comment in script":     "<svg><script§><!-- </script> --></script><style§></style></svg>",
	"svg case":                  "<SVG><LinearGradient></lineargradient><Script§></SCRIPT></svg><style§><a></style>",
	"math":                      "<math><mi>x</mi><style§></style></math><style§><script></style>",
	"font in svg":               "<svg><font><style§></style></font></svg><style§><a></style>",
	"select":                    "<select><option>1</option><script§>1</script><optgroup></optgroup></select><style§><script></style>",
	"table":                     "<table><tr><td><script§></script></table><table><style§></style><script§></script><svg></svg></table>",
	"columns":                   "<template></template><table><colgroup><col></colgroup></table><style§><script></style>",
	"behind the end":            "<html><body></body></html><script§></script>",
	"cut tag":                   "<script§></script><script a=",
	"cut name":                  "<script§></script><scri",
	"cut at open":               "<script§></script><",
	"cut quote":                 `<script§></script><script a="></script><script>`,
	"cut script":                "<script§>1<!--<script",
	"long attribute":            "<script§ a='" + strings.Repeat("x", 50_000) + "'></script>",
	"long name":                 "<p " + strings.Repeat("x", 300) + "=1><" + strings.Repeat("script", 30) + "><script§></script>",
	"too long a tag":            "<script a='" + strings.Repeat("x", 65<<10) + "'><script></script><script§></script>",
	"too many attributes":       "<script" + strings.Repeat(" a", 65) + "><script></script><script§></script>",
	"attribute twice":           "<script§ src=a src=b></script>",
}

// malformed are pages that browsers repair in a way that is not followed; they
// pass, and a nonce stands where the tokenizer alone would have it.
var malformed = map[string]string{
	"svg left open":         "<div><svg><path></div><style§><a></style>",
	"svg broken out of":     "<svg><p><style§><script></style>",
	"svg paragraph end":     "<svg></p><style§></style>",
	"foreign object":        "<svg><foreignObject><div><style§></style></div></foreignObject></svg><script§></script>",
	"svg font":              "<svg><font size=1><style§><script></style>",
	"select with a style":   "<select><style§><script></style></select>",
	"select in a template":  "<template><select></template><style§></style>",
	"select left open":      "<select><p><style§></style>",
	"nested select":         "<select><select><script§></script>",
	"columns of a template": "<template><col><style§></style></template>",
	"frameset":              "<frameset><style§></style>",
	"deep":                  strings.Repeat("<svg>", 200) + "<style§></style>",
	"long name in svg":      "<svg><" + strings.Repeat("x", 30) + "><style§></style></svg>",
	"bracket half":          "<svg><![CDATA[\x81]]><style§></style>",
	"two svg, one end":      "<svg><g><svg></g><style§></style>",
	"annotation":            "<math><annotation-xml><svg><style§></style></svg></math>",
	"template in a select":  "<select><template></template></select><style§></style>",
	"long name in a title":  "<svg><title><" + strings.Repeat("x", 30) + "/></title></svg><style§></style>",
	"other end in a select": "<select></p></select><style§></style>",
	"long name in a select": "<select><" + strings.Repeat("x", 30) + "><script§></script>",
}

// split returns the page and what it must become.
func split(marked string) (page, want string) {
	return strings.ReplaceAll(marked, "§", ""), strings.ReplaceAll(marked, "§", added)
}

func reader(t testing.TB, src io.Reader, cfg inline.Config) *inline.Rewriter {
	t.Helper()
	if cfg.Nonce == "" {
		cfg.Nonce = nonce
	}
	r, err := inline.New(src, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rewrite(t testing.TB, src io.Reader, cfg inline.Config) string {
	t.Helper()
	out, err := io.ReadAll(reader(t, src, cfg))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// halves sends a page in two pieces.
func halves(page string, at int) io.Reader {
	return io.MultiReader(strings.NewReader(page[:at]), strings.NewReader(page[at:]))
}

func TestEveryScriptAndStyleGetsTheNonceAndNothingElseChanges(t *testing.T) {
	for _, table := range []map[string]string{nasty, malformed} {
		for name, marked := range table {
			page, want := split(marked)
			r := reader(t, strings.NewReader(page), inline.Config{})
			got, err := io.ReadAll(r)
			if err != nil || string(got) != want {
				t.Errorf("%s: %v\n got %.300q\nwant %.300q", name, err, got, want)
			}
			if _, ok := nasty[name]; r.Sure() != ok {
				t.Errorf("%s: sure is %v", name, r.Sure())
			}
		}
	}
}

func TestAPageMayBeCutAnywhere(t *testing.T) {
	for _, table := range []map[string]string{nasty, malformed} {
		for name, marked := range table {
			page, want := split(marked)
			for at := 0; at <= min(len(page), 500); at++ {
				if got := rewrite(t, halves(page, at), inline.Config{}); got != want {
					t.Errorf("%s cut at %d:\n got %.300q\nwant %.300q", name, at, got, want)
					break
				}
			}
			for _, src := range []io.Reader{
				iotest.OneByteReader(strings.NewReader(page)),
				iotest.DataErrReader(strings.NewReader(page)),
				iotest.HalfReader(strings.NewReader(page)),
			} {
				if got := rewrite(t, src, inline.Config{}); got != want {
					t.Errorf("%s through %T:\n got %.300q\nwant %.300q", name, src, got, want)
				}
			}
		}
	}
}

func TestAPageMayBeReadInPiecesOfAnySize(t *testing.T) {
	for name, marked := range nasty {
		page, want := split(marked)
		if len(page) > 4096 {
			continue
		}
		for size := 1; size < 40; size++ {
			r := reader(t, strings.NewReader(page), inline.Config{})
			var got strings.Builder
			if _, err := io.CopyBuffer(&got, struct{ io.Reader }{r}, make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			if got.String() != want {
				t.Errorf("%s in %d bytes:\n got %.300q\nwant %.300q", name, size, got.String(), want)
			}
		}
	}
}

func TestANonceOfTheUpstreamIsReplacedWhereItStands(t *testing.T) {
	for in, want := range map[string]string{
		`<script nonce=x src=a></script>`:       `<script nonce="N" src=a></script>`,
		`<script src=a NONCE='x y'></script>`:   `<script src=a NONCE="N"></script>`,
		`<script nonce="x>"></script>`:          `<script nonce="N"></script>`,
		`<script nonce></script>`:               `<script nonce="N"></script>`,
		`<script nonce src=a></script>`:         `<script nonce="N" src=a></script>`,
		`<script nonce=></script>`:              `<script nonce="N"></script>`,
		`<script nonce = ></script>`:            `<script nonce = "N"></script>`,
		`<script nonce=""></script>`:            `<script nonce="N"></script>`,
		`<script/nonce=x></script>`:             `<script/nonce="N"></script>`,
		`<script/nonce/src=x></script>`:         `<script/nonce="N"/src=x></script>`,
		`<script nonce=x nonce=y></script>`:     `<script nonce="N" nonce=y></script>`,
		`<script xnonce=x></script>`:            `<script nonce="N" xnonce=x></script>`,
		`<script a="nonce=x"></script>`:         `<script nonce="N" a="nonce=x"></script>`,
		`<p nonce=x><style nonce=x>a{}</style>`: `<p nonce=x><style nonce="N">a{}</style>`,
		"<script nonce\n=\r'x'\n></script>":     "<script nonce\n=\r\"N\"\n></script>",
		`<script nonce=x/></script>`:            `<script nonce="N"></script>`,
	} {
		want = strings.ReplaceAll(want, `"N"`, `"`+nonce+`"`)
		for at := range len(in) + 1 {
			if got := rewrite(t, halves(in, at), inline.Config{}); got != want {
				t.Errorf("%s cut at %d:\n got %s\nwant %s", in, at, got, want)
			}
		}
	}
}
