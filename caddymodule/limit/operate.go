package limit

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

// named is the limit for whoever shows and resets limits.
func (h *Handler) named(l *Limit) ratelimit.Named {
	return ratelimit.Named{
		Site: h.Site, Name: l.Name, By: l.By,
		Buckets: l.buckets, Grants: l.grantsByBucket(),
	}
}

// grantsByBucket is what each bucket of the limit grants, in words.
func (l *Limit) grantsByBucket() map[string]string {
	words := make(map[string]string)
	for _, grants := range append(slices.Collect(maps.Values(l.tiers)), l.grants) {
		for i := range grants {
			words[grants[i].bucket] = grants[i].String()
		}
	}
	return words
}

// buckets is everything that the limit counts for one value of each key.
func (l *Limit) buckets(values, issuers []string) ([]ratelimit.Bucket, error) {
	if !l.identity {
		issuers = []string{""}
	}
	var buckets []ratelimit.Bucket
	for _, issuer := range issuers {
		subject, found, err := l.subjectOf(values, issuer, issuers)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		buckets = append(buckets, l.lookAt(subject, "", l.grants)...)
		for _, role := range slices.Sorted(maps.Keys(l.tiers)) {
			buckets = append(buckets, l.lookAt(subject, " for "+role, l.tiers[role])...)
		}
	}
	return buckets, nil
}

// lookAt looks at what the limit counts, at the rates of one tier.
func (l *Limit) lookAt(subject, tier string, grants []grant) []ratelimit.Bucket {
	var buckets []ratelimit.Bucket
	for _, g := range grants {
		buckets = append(buckets, ratelimit.Bucket{
			Subject: strings.ReplaceAll(subject, "\x00", " "),
			Limit:   g.String() + tier,
			Request: ratelimit.Request{Limit: g.bucket, Subject: subject, Rate: g.rate, Slots: g.slots, Fallback: l.fallback},
		})
	}
	return buckets
}

// String is the grant in words.
func (g *grant) String() string {
	if g.slots > 0 {
		return fmt.Sprintf("%d at one time", g.slots)
	}
	return g.rate.String()
}

// subjectOf is the subject that requests with these values of the keys are charged
// to; see subject. It is not found when a value names another issuer.
func (l *Limit) subjectOf(values []string, issuer string, issuers []string) (subject string, found bool, err error) {
	wants := len(slices.DeleteFunc(slices.Clone(l.keys), func(k key) bool { return k.kind == "all" }))
	if len(values) != wants && (wants != 0 || len(values) != 1 || values[0] != "all") {
		return "", false, fmt.Errorf("limit %s counts by %s: needs %d values, got %d", l.Name, strings.Join(l.By, " and "), wants, len(values))
	}
	var parts []string
	for _, k := range l.keys {
		if k.kind == "all" {
			parts = append(parts, "all")
			continue
		}
		part, ok, err := l.partOf(k, values[0], issuer, issuers)
		if err != nil || !ok {
			return "", false, err
		}
		parts, values = append(parts, part), values[1:]
	}
	return strings.Join(parts, "\x00"), true, nil
}

// partOf is the part of a subject for an operator's value of a key. A value that
// begins with "ip:" is the address that stood in for a missing one.
func (l *Limit) partOf(k key, value, issuer string, issuers []string) (part string, found bool, err error) {
	if address, stands := strings.CutPrefix(value, "ip:"); stands && k.kind != "path" {
		k.kind, value = "ip", address
	}
	switch k.kind {
	case "ip":
		addr, err := netip.ParseAddr(value)
		if err != nil {
			prefix, errPrefix := netip.ParsePrefix(value)
			if errPrefix != nil {
				return "", false, fmt.Errorf("ip %q: must be an address", value)
			}
			addr = prefix.Addr()
		}
		return "ip:" + l.network(addr.Unmap().WithZone("")), true, nil
	case "path":
		return "path:" + l.plain(value), true, nil
	case "user", "tenant", "session":
		if named, id, ok := strings.Cut(value, "/"); ok && slices.Contains(issuers, named) {
			if named != issuer {
				return "", false, nil
			}
			value = id
		}
		value = issuer + "\x00" + value
	}
	if strings.TrimPrefix(value, issuer+"\x00") == "" {
		return "", false, fmt.Errorf("%s: needs a value", k.kind)
	}
	return k.kind + ":" + value, true, nil
}
