// oidc-provider, as a program: `node oidc_provider.mjs MODULE CONFIG`. MODULE is the folder of oidc-provider, CONFIG a
// JSON file: port, tls (PEM), jwks (private), users (claims by name, and `token`: claims of their JWTs), client and secret.
//
// Beside the provider there are /control/calls (how often each path was asked for), /control/set (keys and faults) and
// /control/token (a token of a user, made by the provider). JWTs of oidc-provider are no good at its own userinfo, as
// those of other providers are at theirs, so a JWT without a resource is answered here.
import * as http from 'node:http';
import * as https from 'node:https';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [module, file] = process.argv.slice(2);
const require = createRequire(`${module}/package.json`);
const load = async (name) => import(pathToFileURL(require.resolve(name)).href);
const { Provider } = await import(pathToFileURL(`${module}/lib/index.js`).href);
const { createLocalJWKSet, jwtVerify } = await load('jose');

const config = JSON.parse(readFileSync(file, 'utf8'));
const pem = config.tls && readFileSync(config.tls);
const issuer = `${pem ? 'https' : 'http'}://127.0.0.1:${config.port}`;
const fault = { userinfo: '', status: 0, delay_ms: 0, huge: false };
let calls = {};
let jwks = config.jwks;
let provider = started();

function claimsOf(id) {
  const { token, ...claims } = config.users[id] ?? {};
  return { sub: id, ...claims };
}

function started() {
  const made = new Provider(issuer, {
    clients: [
      {
        client_id: 'tesk-cli', token_endpoint_auth_method: 'none', application_type: 'native', response_types: ['code'],
        grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
        redirect_uris: ['http://127.0.0.1/callback'],
      },
      {
        client_id: config.client, client_secret: config.secret, grant_types: ['client_credentials'],
        redirect_uris: [], response_types: [],
      },
    ],
    jwks,
    clientDefaults: { id_token_signed_response_alg: jwks.keys[0].alg },
    cookies: { keys: ['tests'] },
    findAccount: (_, id) => ({ accountId: id, claims: () => claimsOf(id) }),
    scopes: ['openid', 'offline_access', 'profile', 'entitlements'],
    claims: { openid: ['sub'], profile: ['name'], entitlements: ['eduperson_entitlement', 'groups'] },
    features: {
      deviceFlow: { enabled: true },
      introspection: { enabled: true, allowedPolicy: () => true },
      revocation: { enabled: true, allowedPolicy: () => true },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        useGrantedResource: () => true,
        getResourceServerInfo: (_, resource) => resourceServer(resource),
      },
    },
    extraTokenClaims: (_, token) => config.users[token.accountId]?.token,
    issueRefreshToken: async () => true,
    rotateRefreshToken: true,
    ttl: { AccessToken: () => config.ttl_s ?? 3600, DeviceCode: 600, Grant: 3600, Interaction: 600, Session: 600,
      RefreshToken: 86400, ClientCredentials: 600, IdToken: 600 },
  });
  return { made, callback: made.callback() };
}

function resourceServer(resource) {
  const { alg } = jwks.keys[0];
  return { scope: 'tes', audience: resource, accessTokenFormat: 'jwt', jwt: { sign: { alg } } };
}

async function token({ user, scope = 'openid profile entitlements', resource = '', format = 'opaque', ttl_s = 3600 }) {
  const { Grant, AccessToken, Client } = provider.made;
  const client = await Client.find('tesk-cli');
  const grant = new Grant({ accountId: user, clientId: client.clientId });
  grant.addOIDCScope(scope);
  if (resource) grant.addResourceScope(resource, scope);
  const grantId = await grant.save();
  const made = new AccessToken({ accountId: user, client, grantId, scope, gty: 'device_code' });
  made.expiresIn = ttl_s;
  made.extra = config.users[user]?.token;
  if (format === 'jwt') made.resourceServer = resourceServer(resource);
  if (resource) made.setAudience?.(resource);
  return { token: await made.save() };
}

async function jwtUserinfo(bearer) {
  const publicKeys = { keys: jwks.keys.map(({ d, p, q, dp, dq, qi, ...rest }) => rest) };
  try {
    const { payload } = await jwtVerify(bearer, createLocalJWKSet(publicKeys), { issuer });
    return [200, claimsOf(payload.sub)];
  } catch {
    return [401, { error: 'invalid_token' }];
  }
}

function answer(response, status, document) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(document));
}

async function body(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return JSON.parse(Buffer.concat(pieces).toString() || '{}');
}

async function control(request, response, path) {
  if (path === '/control/calls') {
    answer(response, 200, calls);
    calls = {};
  } else if (path === '/control/token') {
    answer(response, 200, await token(await body(request)));
  } else {
    const { jwks: keys, ...faults } = await body(request);
    Object.assign(fault, faults);
    if (keys) {
      jwks = keys;
      provider = started();
    }
    answer(response, 200, {});
  }
}

async function handle(request, response) {
  const path = request.url.split('?')[0];
  if (path.startsWith('/control/')) return control(request, response, path);
  calls[path] = (calls[path] ?? 0) + 1;
  if (fault.delay_ms) await new Promise((resolve) => { setTimeout(resolve, fault.delay_ms); });
  if (fault.status) return answer(response, fault.status, {});
  if (fault.huge) return answer(response, 200, { padding: 'x'.repeat(4 * 1024 * 1024) });
  const bearer = (request.headers.authorization ?? '').replace(/^Bearer /, '');
  if (path === '/me' && fault.userinfo) return answer(response, 200, { ...claimsOf('mallory'), sub: fault.userinfo });
  if (path === '/me' && bearer.includes('.')) return answer(response, ...await jwtUserinfo(bearer));
  return provider.callback(request, response);
}

function listener(request, response) {
  handle(request, response).catch((error) => {
    console.error(error);
    answer(response, 500, {});
  });
}

(pem ? https.createServer({ key: pem, cert: pem }, listener) : http.createServer(listener)).listen(config.port, '127.0.0.1');
