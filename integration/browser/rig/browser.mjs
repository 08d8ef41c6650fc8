// A browser that sees the gateway's site and nothing else, and what it noticed.
import { chromium } from 'playwright-core'

const chromiumPath = process.env.CHROMIUM ?? '/usr/bin/chromium'

// Names other than the site's resolve to nothing, so that no run depends on what
// the network holds, and what an application asks for outside is seen.
const flags = [
  '--ignore-certificate-errors',
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost',
  '--disable-quic',
]

// openBrowser starts a browser that is closed at the end of the test.
export async function openBrowser(t) {
  // Chromium's sandbox does not start for root.
  const args = process.getuid() === 0 ? [...flags, '--no-sandbox'] : flags
  const browser = await chromium.launch({ executablePath: chromiumPath, args })
  t.after(() => browser.close())
  return browser
}

// openSite returns a page for the origin and what is noticed in it, in every
// frame and from before the first script on.
export async function openSite(browser, origin) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 800 } })
  const noticed = {
    violations: [], policyMessages: [], errors: [], failed: [], refused: [], outside: new Set(), sockets: [], requests: [],
    workers: [], collect: [],
  }
  await context.exposeBinding('noticeViolation', (_, violation) => noticed.violations.push(violation))
  await context.addInitScript(watchViolations)
  const page = await context.newPage()
  watchConsole(page, noticed)
  watchNetwork(page, noticed, origin)
  watchWorkers(page, noticed)
  return { page, noticed }
}

// watchViolations runs in the page. It must not depend on anything here.
function watchViolations() {
  const notice = globalThis.noticeViolation
  addEventListener('securitypolicyviolation', (event) => {
    const { target } = event
    notice({
      directive: event.effectiveDirective,
      blocked: event.blockedURI,
      disposition: event.disposition,
      document: event.documentURI,
      source: event.sourceFile,
      line: event.lineNumber,
      column: event.columnNumber,
      sample: event.sample,
      element: target instanceof Element ? target.outerHTML.slice(0, 160) : '',
    })
  }, true)
}

// watchWorkers hears what workers raise, which no page does.
function watchWorkers(page, noticed) {
  page.on('worker', (worker) => {
    const seen = { url: worker.url(), violations: [] }
    noticed.workers.push(seen)
    // A worker may be gone before it listens.
    worker.evaluateHandle(listenInWorker).then(async (raised) => {
      noticed.collect.push(async () => { seen.violations = await raised.jsonValue() })
    }).catch(() => {})
  })
}

function listenInWorker() {
  const raised = []
  addEventListener('securitypolicyviolation', (event) => raised.push(
    `${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber} ${event.sample}`))
  return raised
}

function watchConsole(page, noticed) {
  page.on('console', (message) => {
    const text = message.text()
    if (/Content[ -]Security[ -]Policy/i.test(text)) noticed.policyMessages.push(text)
    else if (message.type() === 'error') noticed.errors.push(`${text} (${message.location().url})`)
  })
  page.on('pageerror', (error) => noticed.errors.push(String(error.stack ?? error)))
}

function watchNetwork(page, noticed, origin) {
  const site = new URL(origin).host
  page.on('request', (request) => {
    const url = new URL(request.url())
    noticed.requests.push(`${request.method()} ${url.pathname}`)
    if (!['data:', 'blob:', 'about:'].includes(url.protocol) && url.host !== site) noticed.outside.add(request.url())
  })
  page.on('requestfailed', (request) =>
    noticed.failed.push(`${request.method()} ${request.url()}: ${request.failure()?.errorText}`))
  page.on('response', (response) => {
    if (response.status() >= 400) noticed.refused.push(`${response.status()} ${response.request().method()} ${response.url()}`)
  })
  page.on('websocket', (socket) => {
    const seen = { url: socket.url(), received: 0, sent: 0, error: '' }
    noticed.sockets.push(seen)
    socket.on('framereceived', () => { seen.received++ })
    socket.on('framesent', () => { seen.sent++ })
    socket.on('socketerror', (error) => { seen.error = error })
  })
}
