// An OpenID provider on loopback: node provider.mjs PACKAGE PORT. Its keys are
// made anew at every start. A line {"op":"rotate","keep":true} on standard input
// makes it sign with new keys and go on publishing the old ones; each line is
// answered with the key IDs that are published, those in use first.
import * as crypto from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import * as jose from 'jose';

const [, , packageName, port] = process.argv;
const { default: Provider } = await import(packageName);
const issuer = `http://127.0.0.1:${port}`;

async function freshKeys() {
  const pairs = [
    crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }),
    crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    crypto.generateKeyPairSync('ed25519'),
  ];
  return Promise.all(pairs.map(async ({ privateKey }) => ({
    ...(await jose.exportJWK(privateKey)), kid: crypto.randomUUID(), use: 'sig',
  })));
}

// Resources are https://api.test/FORMAT, FORMAT being an algorithm or a word.
function resourceServer(_ctx, resource) {
  const format = new URL(resource).pathname.slice(1);
  const server = { scope: 'documents.read', audience: 'orders-api', accessTokenTTL: 600, accessTokenFormat: 'jwt' };
  if (format === 'opaque') return { ...server, accessTokenFormat: 'opaque' };
  if (format === 'elsewhere') return { ...server, audience: 'another-api', jwt: { sign: { alg: 'ES256' } } };
  if (format === 'encrypted') {
    const encrypt = { alg: 'dir', enc: 'A256GCM', key: crypto.randomBytes(32) };
    return { ...server, jwt: { sign: { alg: 'ES256' }, encrypt } };
  }
  return { ...server, jwt: { sign: { alg: format } } };
}

const clients = [
  {
    client_id: 'machine',
    client_secret: 'the-secret-of-a-machine-on-loopback',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  },
  {
    client_id: 'browser',
    token_endpoint_auth_method: 'none',
    application_type: 'native',
    grant_types: ['authorization_code'],
    redirect_uris: ['http://127.0.0.1/callback'],
    response_types: ['code'],
  },
];

const cookieKey = crypto.randomBytes(32).toString('hex');

function open(keys) {
  return new Provider(issuer, {
    clients,
    jwks: { keys },
    cookies: { keys: [cookieKey] },
    scopes: ['openid', 'documents.read'],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: resourceServer,
        useGrantedResource: () => false,
      },
    },
    ttl: { AccessToken: 600, ClientCredentials: 600, IdToken: 600, Interaction: 600, Session: 600, Grant: 600 },
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    extraTokenClaims: () => ({ roles: ['user'], tenant_id: 't-1' }),
  });
}

let keys = await freshKeys();
let handle = open(keys).callback();
const server = createServer((request, response) => handle(request, response));
const tell = () => process.stdout.write(`${JSON.stringify({ kids: keys.map(({ kid }) => kid) })}\n`);
server.listen(Number(port), '127.0.0.1', tell);

for await (const line of createInterface({ input: process.stdin })) {
  const { op, keep } = JSON.parse(line);
  if (op !== 'rotate') throw new Error(`unknown operation ${op}`);
  const fresh = await freshKeys();
  keys = keep ? [...fresh, ...keys] : fresh;
  handle = open(keys).callback();
  tell();
}
process.exit(0);
