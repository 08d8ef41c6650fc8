// A gateway process before one application.
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
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

// startGateway starts a gateway with the Caddyfile of the application, which
// names its places by MOAT_PORT, MOAT_UPSTREAM and MOAT_HOME. Where its csp block names
// MOAT_PINS, what the file pins beside it holds is what was learned.
export async function startGateway(t, { home, folder, upstream, policy }) {
  const port = await freePort()
  let caddyfile = await readFile(join(folder, 'Caddyfile'), 'utf8')
  if (policy) caddyfile = withPolicy(caddyfile, policy)
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
  return { running, port, origin: `https://localhost:${port}` }
}
