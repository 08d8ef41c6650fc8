// A signer and verifier made of jose. It reads one JSON object a line and answers
// each with one line; what it generates stays in this process.
import * as crypto from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import * as jose from 'jose';

const keys = new Map();

// algs of one key each, made by jose itself, and the plain key types, which
// serve every algorithm that fits.
const algorithms = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'];
const types = {
  rsa: () => crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }),
  p256: () => crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  p384: () => crypto.generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  p521: () => crypto.generateKeyPairSync('ec', { namedCurve: 'P-521' }),
  ed25519: () => crypto.generateKeyPairSync('ed25519'),
};

const bytes = (text) => new TextEncoder().encode(text);

const version = (name) =>
  JSON.parse(readFileSync(new URL(`../node_modules/${name}/package.json`, import.meta.url))).version;

async function generate(name, pair, alg) {
  keys.set(name, pair);
  const jwk = await jose.exportJWK(pair.publicKey);
  const kid = await jose.calculateJwkThumbprint(jwk);
  return { pem: await jose.exportSPKI(pair.publicKey), jwk: alg ? { ...jwk, kid, alg, use: 'sig' } : jwk, kid };
}

function signingKey({ key, secret }) {
  if (secret !== undefined) return bytes(secret);
  if (!keys.has(key)) throw new Error(`no key ${key}`);
  return keys.get(key).privateKey;
}

const operations = {
  versions: () => ({
    node: process.version,
    jose: version('jose'),
    'oidc-provider': version('oidc-provider'),
    'oidc-provider-8': version('oidc-provider-8'),
  }),

  async keys() {
    const out = {};
    for (const alg of algorithms) {
      const made = await jose.generateKeyPair(alg, { extractable: true });
      out[alg] = await generate(alg, made, alg);
    }
    for (const [name, make] of Object.entries(types)) out[name] = await generate(name, make());
    // Nobody trusts this one.
    out.stranger = await generate('stranger', types.p256());
    return out;
  },

  sign: (q) => new jose.SignJWT(q.claims).setProtectedHeader(q.header).sign(signingKey(q)),

  // Claims as text, for what JSON.stringify would not write.
  signText: (q) => new jose.CompactSign(bytes(q.text)).setProtectedHeader(q.header).sign(signingKey(q)),

  unsecured: (q) => new jose.UnsecuredJWT(q.claims).encode(),

  crit: (q) =>
    new jose.SignJWT(q.claims)
      .setProtectedHeader({ ...q.header, crit: ['urn:example:level'], 'urn:example:level': 1 })
      .sign(signingKey(q), { crit: { 'urn:example:level': true } }),

  // An unencoded payload (RFC 7797) that happens to look like an encoded one.
  async unencoded(q) {
    const payload = jose.base64url.encode(bytes(JSON.stringify(q.claims)));
    const jws = await new jose.FlattenedSign(bytes(payload))
      .setProtectedHeader({ ...q.header, b64: false, crit: ['b64'] })
      .sign(signingKey(q));
    return `${jws.protected}.${payload}.${jws.signature}`;
  },

  encrypt: (q) =>
    new jose.EncryptJWT(q.claims)
      .setProtectedHeader({ alg: 'RSA-OAEP-256', enc: 'A256GCM', typ: 'JWT' })
      .encrypt(keys.get('rsa').publicKey),

  async nested(q) {
    const signed = await operations.sign(q);
    return new jose.CompactEncrypt(bytes(signed))
      .setProtectedHeader({ alg: 'dir', enc: 'A256GCM', cty: 'JWT' })
      .encrypt(crypto.randomBytes(32));
  },

  // A token that brings the key it is signed with.
  embedded: async (q) =>
    new jose.SignJWT(q.claims)
      .setProtectedHeader({ ...q.header, jwk: await jose.exportJWK(keys.get(q.key).publicKey) })
      .sign(signingKey(q)),

  // The private half of a plain key, for a program that signs with it.
  privateKey: ({ key }) => jose.exportPKCS8(signingKey({ key })),

  thumbprint: ({ jwk }) => jose.calculateJwkThumbprint(jwk),

  async verify({ token, pem, jwks, secret, options }) {
    const { alg } = jose.decodeProtectedHeader(token);
    let key;
    if (secret !== undefined) key = bytes(secret);
    else if (pem !== undefined) key = await jose.importSPKI(pem, alg);
    else key = jose.createLocalJWKSet(jwks);
    try {
      const { payload, protectedHeader } = await jose.jwtVerify(token, key, options);
      return { ok: true, payload, header: protectedHeader };
    } catch (error) {
      return { ok: false, code: error.code ?? String(error) };
    }
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const question = JSON.parse(line);
    answer = { result: await operations[question.op](question) };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
