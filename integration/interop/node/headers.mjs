// What two judges say about the response headers of sites: MDN's HTTP Observatory
// and Google's CSP Evaluator. node headers.mjs HTTP_PORT HTTPS_PORT HOST... prints
// one JSON object. NODE_EXTRA_CA_CERTS names the authority of the certificates.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { made, refused, route } from './loopback.mjs';

const [, , httpPort, httpsPort, ...hosts] = process.argv;
for (const host of hosts) route(host, { 80: Number(httpPort), 443: Number(httpsPort) });

// The Observatory's install script would download the HSTS preload list. An empty
// one says the truth of these hosts, and gives no points for a name.
const observatory = new URL('../node_modules/@mdn/mdn-http-observatory/', import.meta.url);
const preload = new URL('conf/hsts-preload.json', observatory);
mkdirSync(new URL('.', preload), { recursive: true });
writeFileSync(preload, '{}\n');

const { scan } = await import('@mdn/mdn-http-observatory');
const require = createRequire(import.meta.url);
const { CspEvaluator, DEFAULT_CHECKS, STRICTCSP_CHECKS } = require('csp_evaluator');
const { CspParser } = require('csp_evaluator/dist/parser.js');
const { Severity } = require('csp_evaluator/dist/finding.js');
const { checkHasConfiguredReporting } = require('csp_evaluator/dist/checks/security_checks.js');

const version = (name) =>
  JSON.parse(readFileSync(new URL(`../node_modules/${name}/package.json`, import.meta.url))).version;

// evaluate makes every check the evaluator has.
function evaluate(policy) {
  const checks = [...DEFAULT_CHECKS, ...STRICTCSP_CHECKS, checkHasConfiguredReporting];
  return new CspEvaluator(new CspParser(policy).csp)
    .evaluate([], checks)
    .map(({ severity, directive, value, description }) => ({
      severity: Severity[severity], directive, value: value ?? '', description,
    }));
}

async function judge(host) {
  const { scan: verdict, tests } = await scan(host);
  const policy = verdict.responseHeaders['content-security-policy'] ?? '';
  const { grade, score, statusCode } = verdict;
  return {
    host, grade, score, status: statusCode, policy, findings: evaluate(policy),
    tests: Object.entries(tests).map(([name, { pass, result, scoreModifier }]) => ({
      name, pass, result, modifier: scoreModifier,
    })),
  };
}

const verdicts = [];
for (const host of hosts) verdicts.push(await judge(host));
process.stdout.write(`${JSON.stringify({
  versions: {
    '@mdn/mdn-http-observatory': version('@mdn/mdn-http-observatory'),
    csp_evaluator: version('csp_evaluator'),
  },
  verdicts, connections: made.length, refused,
})}\n`);
