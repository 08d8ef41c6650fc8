// Violations of the content security policy, put together and compared with
// those that an application is known for.

// summary counts violations that are the same but for where in a file they are.
export function summary(violations, origin) {
  const kinds = new Map()
  for (const violation of violations) {
    const { directive, disposition } = violation
    const kind = { directive, blocked: short(violation.blocked, origin), source: short(violation.source, origin), disposition }
    const key = JSON.stringify(kind)
    if (!kinds.has(key)) kinds.set(key, { ...kind, count: 0, places: new Set(), samples: new Set(), elements: new Set() })
    const group = kinds.get(key)
    group.count++
    group.places.add(`${violation.line}:${violation.column}`)
    if (violation.sample) group.samples.add(violation.sample)
    if (violation.element) group.elements.add(violation.element)
  }
  return [...kinds.values()].sort((a, b) => a.directive.localeCompare(b.directive) || b.count - a.count)
}

// short takes off the origin, whose port is another in each run, and a query,
// which may hold the time.
export function short(address, origin) {
  return (address ?? '').replaceAll(origin, '').replace(/[?#]\S*/g, '')
}

// compare returns what was not expected, and which expectations nothing met, so
// that the list stays true. An entry of the list has a reason; sometimes means
// that a run may pass without it.
export function compare(seen, expected, matches) {
  for (const entry of expected) {
    if (!entry.reason) throw new Error(`${JSON.stringify(entry)}: has no reason`)
  }
  return {
    unexpected: seen.filter((one) => !expected.some((entry) => matches(entry, one))),
    unmet: expected.filter((entry) => !entry.sometimes && !seen.some((one) => matches(entry, one))),
  }
}

// sameViolation: source is a pattern of the files that may cause it, any if it is
// left out.
export function sameViolation(entry, kind) {
  return entry.directive === kind.directive && entry.blocked === kind.blocked
    && new RegExp(entry.source ?? '').test(kind.source)
}

// sameTrouble: text is a pattern.
export function sameTrouble(entry, line) {
  return new RegExp(entry.text).test(line)
}

// print writes the kinds one a line, with examples below.
export function print(kinds, examples = 3) {
  for (const kind of kinds) {
    console.log(`  ${kind.directive}  ${kind.blocked}  ×${kind.count}  from ${kind.source || '(the document)'} at ${list(kind.places, 6)}  [${kind.disposition}]`)
    for (const sample of [...kind.samples].slice(0, examples)) console.log(`      sample  ${JSON.stringify(sample)}`)
    for (const element of [...kind.elements].slice(0, examples)) console.log(`      element ${JSON.stringify(element)}`)
  }
}

function list(set, most) {
  const all = [...set]
  return all.slice(0, most).join(' ') + (all.length > most ? ` … (${all.length})` : '')
}
