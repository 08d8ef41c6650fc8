package rbac

import "strings"

// node is one position in the trie of patterns. A look-up costs as much as the
// path has segments, however many rules there are: the literal child is found
// by hash. Where literal and parameter both lead on, it may have to come back,
// at most once a node.
type node struct {
	literals map[string]*node
	children []*node // the literals' nodes in the order of their rules
	param    *node
	exact    *terminal // patterns that end here
	tail     *terminal // patterns that end here in "**"
}

// terminal holds the rules of one pattern, whatever its parameters are called.
type terminal struct {
	segments []segment
	named    []named
	any      *Rule
}

type named struct {
	method string
	rule   *Rule
}

// rule returns the rule for a method: one that names it, one that covers it,
// one for all. The method "" stands for every method that no rule names.
func (t *terminal) rule(method string) *Rule {
	if t == nil {
		return nil
	}
	if r := t.namedRule(method); r != nil {
		return r
	}
	if method == methodHead {
		if r := t.namedRule(methodGet); r != nil {
			return r
		}
	}
	return t.any
}

func (t *terminal) namedRule(method string) *Rule {
	for i := range t.named {
		if t.named[i].method == method {
			return t.named[i].rule
		}
	}
	return nil
}

// add enters a rule and returns the first rule that is already there for one of
// its methods.
func (t *terminal) add(r *Rule) (earlier *Rule) {
	if r.methods.any {
		if t.any != nil {
			return t.any
		}
		t.any = r
		return nil
	}
	for _, m := range r.methods.listed {
		if other := t.namedRule(m); other != nil {
			return other
		}
	}
	for _, m := range r.methods.listed {
		t.named = append(t.named, named{m, r})
	}
	return nil
}

// at returns the terminal of a pattern: the one that is there, a new one with
// create, or nil.
func (n *node) at(segments []segment, create bool) *terminal {
	slot := &n.exact
	for _, s := range segments {
		if s.kind == tail {
			slot = &n.tail
			break
		}
		if n = n.step(s, create); n == nil {
			return nil
		}
		slot = &n.exact
	}
	if *slot == nil && create {
		*slot = &terminal{segments: segments}
	}
	return *slot
}

func (n *node) step(s segment, create bool) *node {
	if s.kind == parameter {
		if n.param == nil && create {
			n.param = new(node)
		}
		return n.param
	}
	next := n.literals[s.text]
	if next == nil && create {
		next = new(node)
		if n.literals == nil {
			n.literals = map[string]*node{}
		}
		n.literals[s.text] = next
		n.children = append(n.children, next)
	}
	return next
}

// find returns the most specific rule for a method and the rest of a path. It
// tries the more specific first at each position, which finds the pattern that
// is nowhere less specific, because NewPolicy has made sure that there is one.
func (n *node) find(rest string, more bool, method string) *Rule {
	if !more {
		if r := n.exact.rule(method); r != nil {
			return r
		}
		return n.tail.rule(method)
	}
	text, after, more := strings.Cut(rest, "/")
	if next := n.literals[text]; next != nil {
		if r := next.find(after, more, method); r != nil {
			return r
		}
	}
	if n.param != nil && text != "" {
		if r := n.param.find(after, more, method); r != nil {
			return r
		}
	}
	return n.tail.rule(method)
}
