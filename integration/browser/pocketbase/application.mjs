// PocketBase: a dashboard that was built by a bundler and sends a policy itself.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { run, serving, start } from '../rig/process.mjs'

const email = 'keeper@example.com'
const password = 'a-long-enough-password'

export const path = '/_/'

export async function serve(t, home, port) {
  const env = { PATH: process.env.PATH, HOME: home }
  const places = ['--dir', join(home, 'data'), '--hooksDir', join(home, 'hooks'), '--migrationsDir', join(home, 'migrations'), '--publicDir', join(home, 'public')]
  await run(t, process.env.POCKETBASE_BIN, ['superuser', 'upsert', email, password, ...places], { env })
  const running = start(t, process.env.POCKETBASE_BIN, ['serve', `--http=127.0.0.1:${port}`, ...places], { env })
  await serving(running, port, 'PocketBase')
  await fill(`http://127.0.0.1:${port}`)
}

// fill makes a collection with every kind of field that has an editor of its own,
// and one record.
async function fill(base) {
  const { token } = await post(`${base}/api/collections/_superusers/auth-with-password`, { identity: email, password })
  await post(`${base}/api/collections`, {
    name: 'notes', type: 'base',
    fields: [{ name: 'title', type: 'text' }, { name: 'body', type: 'editor' }, { name: 'meta', type: 'json' }],
  }, token)
  await post(`${base}/api/collections/notes/records`,
    { title: 'Drawbridge', body: '<p>Up at <strong>night</strong>.</p>', meta: { depth: 3 } }, token)
}

async function post(url, body, token = '') {
  const response = await fetch(url, {
    method: 'POST', body: JSON.stringify(body),
    headers: { 'Content-Type': 'application/json', Authorization: token },
  })
  assert.equal(response.status, 200, `${url}: ${response.status}`)
  return response.json()
}

// use signs in, lists the records, opens the one there is and changes it.
export async function use(page) {
  await page.locator('input[type="email"]').fill(email)
  await page.locator('input[type="password"]').fill(password)
  await page.locator('button[type="submit"]').click()
  await page.locator('.sidebar-list-item', { hasText: 'notes' }).click()
  const row = page.locator('table tbody tr', { hasText: 'Drawbridge' })
  await row.waitFor()
  await row.click()
  const panel = page.locator('.overlay-panel.active, .overlay-panel')
  await panel.frameLocator('iframe').locator('strong', { hasText: 'night' }).waitFor()
  await panel.locator('textarea').first().fill('Portcullis')
  const [saved] = await Promise.all([
    page.waitForResponse((response) => response.request().method() === 'PATCH'),
    panel.locator('button', { hasText: 'Save' }).click(),
  ])
  assert.equal(saved.status(), 200, 'the record is saved')
  await page.locator('table tbody tr', { hasText: 'Portcullis' }).waitFor()
}
