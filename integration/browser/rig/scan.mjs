// Lets MDN's HTTP Observatory judge one page of a gateway on loopback. It is a
// process of its own, because it turns away every connection that does not go
// there, and NODE_EXTRA_CA_CERTS, which names the gateway's authority, is read
// when Node starts. node scan.mjs HTTP_PORT HTTPS_PORT HOST PATH prints one JSON
// object.
import { mkdirSync, writeFileSync } from 'node:fs'
import { made, refused, route } from '../../interop/node/loopback.mjs'

const [, , httpPort, httpsPort, host, path] = process.argv
route(host, { 80: Number(httpPort), 443: Number(httpsPort) })

// The Observatory's install script would download the HSTS preload list. An empty
// one says the truth of a name in .test, and gives no points for it.
const preload = new URL('../node_modules/@mdn/mdn-http-observatory/conf/hsts-preload.json', import.meta.url)
mkdirSync(new URL('.', preload), { recursive: true })
writeFileSync(preload, '{}\n')

const { scan } = await import('@mdn/mdn-http-observatory')

// It puts what it is given behind https://, so that a path may follow the name.
const { scan: verdict, tests } = await scan(host + path)
const { grade, score, statusCode: status, responseHeaders } = verdict
process.stdout.write(`${JSON.stringify({
  grade, score, status, policy: responseHeaders['content-security-policy'] ?? '',
  tests: Object.entries(tests).map(([name, { pass, result, scoreModifier: modifier }]) => ({ name, pass, result, modifier })),
  connections: made.length, refused,
})}\n`)
