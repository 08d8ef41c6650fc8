// A gateway process before one application.
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import tls from 'node:tls'
import { eventually, freePort, lastLines, serving, start } from './process.mjs'

// cspBlock is the block of a Caddyfile that says the content security policy. It
// stands in a line of its own and holds no further block.
const cspBlock = /^([ \t]*)csp \{\n[^{}]*\}\n/m

// surveyPolicy asks the browser what the preset would have blocked. The samples
// tell which script or style it was.
export const surveyPolicy = ['report_only', "default-src 'self' 'report-sample'"]

// withPolicy returns the Caddyfile with other lines in its csp block.
export function withPolicy(caddyfile, lines) {
  if (!cspBlock.test(caddyfile)) throw new Error('the Caddyfile has no csp block of its own')
  return caddyfile.replace(cspBlock, (_, indent) =>
    [`${indent}csp {`, ...lines.map((line) => `${indent}\t${line}`), `${indent}}`, ''].join('\n'))
}

const ownSite = 'https://localhost:{$MOAT_PORT} {'
const ownTLS = /\ttls internal \{\n[^}]*\}\n/

// inPlain returns the Caddyfile with its site without TLS.
function inPlain(caddyfile) {
  if (!ownTLS.test(caddyfile)) throw new Error('the Caddyfile has no tls block')
  return caddyfile.replace(ownSite, () => ownSite.replace('https', 'http')).replace(ownTLS, '')
}

const noRedirects = 'auto_https disable_redirects'

// atHost returns the Caddyfile with its site at another name, and with a port that
// leads http to https, as a gateway on the internet has one.
function atHost(caddyfile, host, httpPort) {
  for (const part of [ownSite, noRedirects]) {
    if (caddyfile.split(part).length !== 2) throw new Error(`the Caddyfile does not say ${part} once`)
  }
  return caddyfile.replace(ownSite, () => `https://${host} {`)
    .replace(noRedirects, () => `http_port ${httpPort}\n\thttps_port {$MOAT_PORT}`)
}

// startGateway starts a gateway with the Caddyfile of the application, which
// names its places by MOAT_PORT, MOAT_UPSTREAM and MOAT_HOME. Where its csp block names
// MOAT_PINS, what the file pins beside it holds is what was learned. With a host,
// the site has that name instead of localhost, and a port for http. Plain is without
// TLS.
export async function startGateway(t, { home, folder, upstream, policy, host = '', plain = false }) {
  const port = await freePort()
  const httpPort = host ? await freePort() : 0
  let caddyfile = await readFile(join(folder, 'Caddyfile'), 'utf8')
  if (policy) caddyfile = withPolicy(caddyfile, policy)
  if (host) caddyfile = atHost(caddyfile, host, httpPort)
  if (plain) caddyfile = inPlain(caddyfile)
  await mkdir(home, { recursive: true })
  const file = join(home, 'Caddyfile')
  if (caddyfile.includes('MOAT_PINS')) {
    await copyFile(join(folder, 'pins'), join(home, 'pins'))
    caddyfile = caddyfile.replaceAll('MOAT_PINS', join(home, 'pins'))
  }
  await writeFile(file, caddyfile)
  const env = {
    PATH: '/usr/bin:/bin', HOME: home, XDG_DATA_HOME: home, XDG_CONFIG_HOME: home,
    MOAT_HOME: home, MOAT_PORT: String(port), MOAT_UPSTREAM: `127.0.0.1:${upstream}`,
  }
  const running = start(t, process.env.MOAT_BIN, ['run', '--config', file, '--adapter', 'caddyfile'], { env })
  await eventually('the gateway to take its configuration', () => {
    if (running.ended) throw new Error(`the gateway ended:\n${lastLines(running.output)}`)
    return running.output.includes('serving initial configuration')
  })
  await serving(running, port, 'the gateway')
  const authority = join(home, 'caddy', 'pki', 'authorities', 'local', 'root.crt')
  if (host) {
    await serving(running, httpPort, 'the redirects')
    await eventually('the certificate', () => certified(port, host, authority))
  }
  return { running, home, file, env, host, port, httpPort, authority, origin: `${plain ? 'http' : 'https'}://localhost:${port}` }
}

// certified tells whether the site has its certificate, which Caddy obtains after
// it began to serve.
async function certified(port, host, authority) {
  const ca = await readFile(authority).catch(() => undefined)
  if (!ca) return false
  return new Promise((resolve) => {
    const socket = tls.connect({ host: '127.0.0.1', port, servername: host, ca })
    socket.once('secureConnect', () => { socket.destroy(); resolve(true) })
    socket.once('error', () => resolve(false))
  })
}
