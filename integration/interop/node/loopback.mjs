// Keeps a judge on this machine. A judge asks the well-known ports of a host
// name, as it would on the internet; route leads those to the ports of a gateway
// on loopback, and every other connection is refused and remembered. All of
// Node's TCP and TLS connections begin at Socket.connect.
import { Socket } from 'node:net';

const { connect } = Socket.prototype;
const routes = new Map();

export const made = [];
export const refused = [];

export function route(host, ports) {
  for (const [from, to] of Object.entries(ports)) routes.set(`${host}:${from}`, to);
}

Socket.prototype.connect = function (...args) {
  // Node itself calls with its arguments already gathered in an array.
  const [options] = Array.isArray(args[0]) ? args[0] : args;
  const address = `${options?.host}:${options?.port}`;
  const port = routes.get(address);
  if (port === undefined) {
    refused.push(address);
    throw new Error(`${address} is not on this machine`);
  }
  made.push(address);
  // The name for SNI and the certificate was taken from the URL before.
  Object.assign(options, { host: '127.0.0.1', port });
  return connect.apply(this, args);
};
