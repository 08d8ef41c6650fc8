// Processes of the rig: each is ended at the end of the test that started it, and
// the kernel ends it when the rig itself is killed.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

// Two slow cores that also run a browser need more than one would think.
export const startBudget = 60_000

// lastFirst ends what a test started in the opposite order: a gateway that is
// asked to end before its browser waits for it.
export function lastFirst(t) {
  const steps = []
  t.after(async () => {
    for (const step of steps.reverse()) await step()
  })
  return { after: (step) => steps.push(step) }
}

// start runs a program to serve until the test is over.
export function start(t, command, args, options = {}) {
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', command, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...options,
  })
  const running = { child, output: '', ended: false }
  const keep = (chunk) => { running.output += chunk }
  child.stdout.setEncoding('utf8').on('data', keep)
  child.stderr.setEncoding('utf8').on('data', keep)
  child.on('error', (error) => { running.output += error; running.ended = true })
  child.on('exit', () => { running.ended = true })
  t.after(() => end(running))
  return running
}

async function end(running) {
  if (running.ended) return
  const gone = once(running.child, 'exit')
  running.child.kill('SIGTERM')
  const late = setTimeout(() => running.child.kill('SIGKILL'), 10_000)
  await gone
  clearTimeout(late)
}

// run runs a program to its end and returns what it printed.
export async function run(t, command, args, options = {}) {
  const running = start(t, command, args, options)
  if (!running.ended) await once(running.child, 'close')
  if (running.child.exitCode !== 0) throw new Error(`${command} ${args[0]} failed:\n${lastLines(running.output)}`)
  return running.output
}

// serving waits until the process accepts connections at the port.
export async function serving(running, port, what) {
  await eventually(what, () => {
    if (running.ended) throw new Error(`${what} ended:\n${lastLines(running.output)}`)
    return accepts(port)
  })
}

// eventually polls until the condition holds.
export async function eventually(what, condition, budget = startBudget) {
  const deadline = Date.now() + budget
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited ${budget} ms for ${what}`)
    await pause(50)
  }
}

function accepts(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1')
    socket.once('connect', () => { socket.destroy(); resolve(true) })
    socket.once('error', () => resolve(false))
  })
}

// freePort returns a loopback port that nothing listens at.
export async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}

export function lastLines(text, n = 12) {
  return text.trimEnd().split('\n').slice(-n).join('\n')
}
