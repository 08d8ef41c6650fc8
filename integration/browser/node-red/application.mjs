// Node-RED: an editor of flows, and a WebSocket that tells it what they do.
import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { eventually, serving, start } from '../rig/process.mjs'

const require = createRequire(import.meta.url)

const flow = [
  { id: 'tab1', type: 'tab', label: 'Browser test' },
  { id: 'inject1', type: 'inject', z: 'tab1', name: 'ask', props: [{ p: 'payload' }], payload: 'moat', payloadType: 'str', topic: '', repeat: '', crontab: '', once: false, onceDelay: 0.1, x: 160, y: 100, wires: [['function1']] },
  { id: 'function1', type: 'function', z: 'tab1', name: 'greet', func: "msg.payload = 'hello ' + msg.payload\nreturn msg", outputs: 1, timeout: 0, x: 340, y: 100, wires: [['debug1']] },
  { id: 'debug1', type: 'debug', z: 'tab1', name: 'see', active: true, tosidebar: true, complete: 'payload', targetType: 'msg', x: 520, y: 100, wires: [] },
]

export const path = '/'

// serve starts it with its settings as they are delivered, but for the port, the
// welcome tour, and what it would ask the network for.
export async function serve(t, home, port) {
  await mkdir(home, { recursive: true })
  await writeFile(join(home, 'settings.js'), `module.exports = {
  uiHost: '127.0.0.1', uiPort: ${port}, flowFile: 'flows.json', credentialSecret: false,
  telemetry: { enabled: false, updateNotification: false },
  editorTheme: { tours: false },
}`)
  await writeFile(join(home, 'flows.json'), JSON.stringify(flow))
  const env = { PATH: process.env.PATH, HOME: home }
  const program = require.resolve('node-red/red.js')
  const running = start(t, process.execPath, [program, '--userDir', home, '--settings', join(home, 'settings.js')], { env })
  await serving(running, port, 'Node-RED')
  await eventually('Node-RED to start its flows', () => running.output.includes('Started flows'))
}

// use opens the flow, edits a function, drags a node from the palette, deploys,
// presses the button of the flow and reads the answer.
export async function use(page, noticed) {
  await page.locator('#function1').waitFor()
  await editFunction(page)
  await dragComment(page)
  const [deployed] = await Promise.all([
    page.waitForResponse((response) =>
      response.request().method() === 'POST' && new URL(response.url()).pathname === '/flows'),
    page.locator('#red-ui-header-button-deploy').click(),
  ])
  assert.equal(deployed.status(), 200, 'the flow is deployed')
  await openDebug(page)
  await page.locator('#inject1 .red-ui-flow-node-button-button').click()
  await page.locator('.red-ui-debug-msg', { hasText: 'goodbye moat' }).first().waitFor()
  const comms = noticed.sockets.find((socket) => socket.url.endsWith('/comms'))
  assert.ok(comms && comms.received > 0 && !comms.error, 'the WebSocket is alive')
}

// editFunction changes the function in the code editor, which runs workers.
async function editFunction(page) {
  await page.locator('#function1').dblclick()
  const editor = page.locator('.red-ui-tray .monaco-editor:visible').first()
  await editor.locator('.view-line', { hasText: 'hello' }).waitFor()
  await editor.click()
  await page.keyboard.press('Control+A')
  await page.keyboard.insertText("msg.payload = 'goodbye ' + msg.payload\nreturn msg")
  await page.locator('#node-dialog-ok').click()
  await editor.waitFor({ state: 'hidden' })
}

async function dragComment(page) {
  await page.locator('.red-ui-palette-node[data-palette-type="comment"]').dragTo(page.locator('#red-ui-workspace-chart'),
    { targetPosition: { x: 300, y: 300 } })
  await page.locator('.red-ui-flow-node-group', { hasText: 'comment' }).first().waitFor()
}

async function openDebug(page) {
  await page.keyboard.press('Control+g')
  await page.keyboard.press('d')
}
