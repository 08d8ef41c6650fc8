// TiddlyWiki: one page of scripts that writes itself, and a server that keeps it.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { run, serving, start } from '../rig/process.mjs'

const require = createRequire(import.meta.url)
const program = require.resolve('tiddlywiki/tiddlywiki.js')

const title = 'What the moat is for'

export const path = '/'

export async function serve(t, home, port) {
  const env = { PATH: process.env.PATH, HOME: home }
  await run(t, process.execPath, [program, home, '--init', 'server'], { env })
  const running = start(t, process.execPath, [program, home, '--listen', 'host=127.0.0.1', `port=${port}`], { env })
  await serving(running, port, 'TiddlyWiki')
}

// use writes a tiddler, waits until it is saved, and finds it after a reload.
export async function use(page) {
  await page.locator('button[aria-label="new tiddler"]').first().click()
  const frame = page.locator('.tc-tiddler-edit-frame')
  await frame.locator('input.tc-titlebar').fill(title)
  await page.frameLocator('.tc-tiddler-edit-frame iframe').locator('textarea').fill("It keeps ''strangers'' out.")
  const [saved] = await Promise.all([
    page.waitForResponse((response) =>
      response.request().method() === 'PUT' && response.url().endsWith(`/${encodeURIComponent(title)}`)),
    frame.locator('button[class*="Buttons%2Fsave"]').click(),
  ])
  assert.equal(saved.status(), 204, 'the tiddler is saved')
  await page.goto(new URL(`#${encodeURIComponent(title)}`, page.url()).href)
  // It saves which tiddlers are open a moment later; a reload would cut that off.
  await page.waitForLoadState('networkidle')
  await page.locator('body:not(.tc-dirty)').waitFor()
  await page.reload()
  await page.locator('.tc-tiddler-body strong', { hasText: 'strangers' }).first().waitFor()
}
