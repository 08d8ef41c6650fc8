// What MDN's HTTP Observatory says about the page of an application.
import { fileURLToPath } from 'node:url'
import { run } from './process.mjs'

const scanner = fileURLToPath(new URL('scan.mjs', import.meta.url))

// observe has the page judged that a gateway with ports for both schemes serves.
export async function observe(t, gateway, path) {
  const { host, httpPort, port, authority, home } = gateway
  const env = { PATH: process.env.PATH, HOME: home, NODE_EXTRA_CA_CERTS: authority }
  return JSON.parse(await run(t, process.execPath, [scanner, String(httpPort), String(port), host, path], { env }))
}

// costs are the tests that take points.
export function costs({ tests }) {
  return tests.filter(({ pass, modifier }) => !pass || modifier < 0).map(line)
}

export function printVerdict(name, verdict) {
  const { grade, score, status, tests, policy, connections } = verdict
  const passed = tests.filter(({ pass }) => pass).length
  console.log(`\n${name}: grade ${grade}, score ${score}, status ${status}, ${passed} of ${tests.length} tests passed, ${connections} connections`)
  for (const test of tests) console.log(`  ${line(test)}`)
  console.log(`  policy: ${shortened(policy)}`)
}

function line({ name, pass, result, modifier }) {
  return `${pass ? 'passed' : 'FAILED'} ${modifier > 0 ? '+' : ''}${modifier} ${name}: ${result}`
}

// shortened leaves out most of a long list of hashes.
function shortened(policy) {
  return policy.replace(/((?: 'sha256-[^\s;]+){2})((?: 'sha256-[^\s;]+)+)/g, (_, first, more) =>
    `${first} … (${more.trim().split(' ').length} more)`)
}
