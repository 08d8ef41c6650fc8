// Unmodified applications behind the gateway, used in a real browser. Each has a
// folder with its Caddyfile, with what starts and uses it, and with the
// violations of its policy that are known and harmless. MDN's HTTP Observatory then
// grades the page of each. `make browser-test` runs this; with SURVEY=1 the html
// preset is sent for the browser to report on instead, and what it would have
// blocked is printed.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { openBrowser, openSite } from './rig/browser.mjs'
import { startGateway, surveyPolicy } from './rig/gateway.mjs'
import { costs, observe, printVerdict } from './rig/observatory.mjs'
import { eventually, freePort, lastFirst, lastLines } from './rig/process.mjs'
import { compare, print, sameTrouble, sameViolation, short, summary } from './rig/violations.mjs'
import * as reflecting from './reflecting/application.mjs'

const here = fileURLToPath(new URL('.', import.meta.url))
const pictures = process.env.SCREENSHOTS ?? join(here, '..', '..', 'tmp', 'browser')
const surveying = Boolean(process.env.SURVEY)
const budget = 120_000

let homes

before(async () => {
  homes = await mkdtemp(join(tmpdir(), 'moat-browser-'))
  await mkdir(pictures, { recursive: true })
  console.log(`screenshots: ${pictures}`)
})

after(() => rm(homes, { recursive: true, force: true }))

const names = ['node-red', 'tiddlywiki', 'pocketbase', 'reflecting']

for (const name of names) {
  test(`${name} works behind the gateway`, { timeout: budget }, async (t) => {
    const application = await import(`./${name}/application.mjs`)
    const policy = surveying ? surveyPolicy : undefined
    const { page, noticed, origin } = await visit(t, name, application, policy)
    try {
      await application.use(page, noticed)
    } finally {
      await page.screenshot({ path: join(pictures, `${name}.png`) })
      await Promise.allSettled(noticed.collect.map((collect) => collect()))
      await keep(name, noticed)
      tell(name, noticed, origin)
    }
    if (!surveying) await judge(name, noticed, origin)
  })
}

for (const name of names) {
  test(`the Observatory gives ${name} an A+`, { timeout: budget, skip: surveying }, async (test) => {
    const t = lastFirst(test)
    const application = await import(`./${name}/application.mjs`)
    const gateway = await guard(t, name, application, { host: `${name}.moat.test` })
    const verdict = await observe(t, gateway, application.path)
    printVerdict(name, verdict)
    // What it wanted from elsewhere would be missing in its verdict.
    assert.deepEqual(verdict.refused, [], 'it asked elsewhere')
    assert.ok(verdict.policy, 'the page has no policy')
    assert.equal(verdict.grade, 'A+', `score ${verdict.score}: ${costs(verdict).join('; ')}`)
  })
}

test('an injected script does not run', { timeout: budget, skip: surveying }, async (t) => {
  const { page, noticed, origin } = await visit(t, 'reflecting', reflecting)
  for (const [what, attack] of Object.entries(reflecting.attacks)) {
    noticed.violations.length = 0
    assert.equal(await taken(page, origin, attack), false, `${what} ran`)
    await page.locator('#own', { hasText: 'the page works' }).waitFor()
    assert.ok(noticed.violations.length > 0, `${what}: no violation`)
  }
})

// What the policy is tested with must be dangerous, or the test above says nothing.
test('an injected script runs where the policy is only reported', { timeout: budget, skip: surveying }, async (t) => {
  const { page, origin } = await visit(t, 'reflecting', reflecting, surveyPolicy)
  for (const [what, attack] of Object.entries(reflecting.attacks)) {
    if (attack.includes(reflecting.elsewhere)) continue
    assert.equal(await taken(page, origin, attack), true, `${what} did not run`)
  }
})

// The ladder, climbed by what the browser itself reports: over TLS by both ways, and
// without by the one that works there.
for (const plain of [false, true]) {
  test(`what the browser reports ${plain ? 'in plain' : 'over TLS'} becomes a proposal`, { timeout: budget, skip: surveying }, async (t) => {
    const { page, gateway } = await visit(t, 'reflecting', reflecting, ['report_only', 'report /-/csp'], { plain })
    const wanted = '<img src="https://images.example/a.png"><img src=x onerror="1">'
    for (let round = 0; round < 3; round++) {
      await page.goto(`${gateway.origin}/?name=${encodeURIComponent(wanted)}`, { waitUntil: 'load' })
    }
    let proposed = ''
    await eventually('the reports', async () => {
      proposed = await propose(gateway)
      return proposed.includes('https://images.example')
    }, 90_000)
    assert.match(proposed, /^\timg-src 'self' data: https:\/\/images\.example$/m)
    assert.match(proposed, /^# script-src-attr inline: event handlers/m)
    assert.match(proposed, /^# script-src-elem inline: .*`nonce` or `hash`/m)
    assert.match(proposed, /^\treport_only\n\treport \/-\/csp$/m)
  })
}

// propose prints the policy that the trail of the gateway leads to.
async function propose(gateway) {
  const args = ['csp', 'propose', join(gateway.home, 'journal'), '--config', gateway.file, '--adapter', 'caddyfile', '--min-count', '1']
  const command = await promisify(execFile)(process.env.MOAT_BIN, args, { env: gateway.env }).catch((failed) => failed)
  return command.stdout
}

// taken opens the page with the attack in its query and says whether it ran.
async function taken(page, origin, attack) {
  await page.goto(`${origin}/?name=${encodeURIComponent(attack)}`, { waitUntil: 'load' })
  return page.evaluate(() => Boolean(globalThis.taken))
}

// guard starts the application and the gateway before it.
async function guard(t, name, application, options) {
  const home = await mkdtemp(join(homes, `${name}-`))
  const upstream = await freePort()
  await application.serve(t, join(home, 'application'), upstream)
  return startGateway(t, { home: join(home, 'gateway'), folder: join(here, name), upstream, ...options })
}

// visit opens the application's page in a browser. The policy takes the place of
// the Caddyfile's.
async function visit(test, name, application, policy, options) {
  const t = lastFirst(test)
  const gateway = await guard(t, name, application, { policy, ...options })
  const browser = await openBrowser(t)
  const { page, noticed } = await openSite(browser, gateway.origin)
  page.setDefaultTimeout(30_000)
  const response = await page.goto(gateway.origin + application.path)
  assert.equal(response.status(), 200, `the page of ${name}: ${lastLines(gateway.running.output)}`)
  return { page, noticed, gateway, origin: gateway.origin }
}

function tell(name, noticed, origin) {
  console.log(`\n${name}: ${noticed.requests.length} requests, ${noticed.violations.length} violations, ${noticed.policyMessages.length} messages of the policy`)
  print(summary(noticed.violations, origin))
  for (const line of troubles(noticed, origin)) console.log(`  ${line}`)
  for (const address of noticed.outside) console.log(`  asked outside: ${address}`)
  for (const { url, violations } of noticed.workers) console.log(`  worker: ${short(url, origin)} ${violations.join('; ') || 'without a violation'}`)
  for (const { url, received, sent, error } of noticed.sockets) console.log(`  socket: ${new URL(url).pathname} received ${received} sent ${sent} ${error}`)
}

// troubles are lines that should not be there, whatever the policy says.
function troubles({ errors, failed, refused }, origin) {
  const lines = [
    ...errors.map((line) => `error ${line.split('\n')[0]}`),
    ...failed.map((line) => `failed ${line}`),
    ...refused.map((line) => `refused ${line}`),
  ]
  return [...new Set(lines.map((line) => short(line, origin)))]
}

// keep writes down everything that was noticed, and the hashes that would allow
// each script and style, which Chromium tells in its messages.
async function keep(name, noticed) {
  const hashes = {}
  for (const text of noticed.policyMessages) {
    const kind = text.split(' violates')[0]
    for (const [hash] of text.matchAll(/'sha256-[\w+/]{43}='/g)) (hashes[kind] ??= new Set()).add(hash)
  }
  const lists = Object.fromEntries(Object.entries(hashes).map(([kind, set]) => [kind, [...set]]))
  const all = { ...noticed, collect: undefined, outside: [...noticed.outside], hashes: lists }
  await writeFile(join(pictures, `${name}.json`), JSON.stringify(all, null, 1))
}

// judge fails on what the application is not known for.
async function judge(name, noticed, origin) {
  const known = JSON.parse(await readFile(join(here, name, 'expected.json'), 'utf8'))
  const good = { unexpected: [], unmet: [] }
  const inWorkers = noticed.workers.flatMap((worker) => worker.violations)
  assert.deepEqual(compare(summary(noticed.violations, origin), known.violations, sameViolation), good, 'violations')
  assert.deepEqual(inWorkers, [], 'violations in workers')
  assert.deepEqual(compare(troubles(noticed, origin), known.troubles, sameTrouble), good, 'troubles')
}
