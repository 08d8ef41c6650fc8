package inline

// Sure reports whether the page was nested so that every browser reads it in
// the same way.
func (r *Rewriter) Sure() bool { return !r.tree.unsure }

// Held is how much memory the rewriter keeps.
func (r *Rewriter) Held() int { return cap(r.held) + cap(r.out) }

// Supersets are the labels that are taken for a superset of ASCII.
func Supersets() map[string]bool { return supersets }
