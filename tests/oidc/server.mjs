// A real OpenID provider for the whole-system tests: the package oidc-provider with everything in
// memory, on https://127.0.0.1 with the certificate that the test made.
//
//   node server.mjs CERTIFICATE KEY [PORT]
//
// Prints {"issuer": …} when it listens. Each line on standard input makes it sign with a new key
// alone; it answers with {"rotated": KID}. Ends when its standard input does.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { Provider } from 'oidc-provider';

const [certificate, key, wanted = '0'] = process.argv.slice(2);
const users = { ann: ['Staff', 'Trading'], bob: ['Staff'], service: ['Hosts'] };

function newKey() {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'ES256' };
}

function configuration(jwk) {
  return {
    jwks: { keys: [jwk] },
    cookies: { keys: [randomUUID()] },
    clients: [
      {
        client_id: 'service',
        client_secret: 'of-this-test-only',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        id_token_signed_response_alg: 'ES256',
      },
      {
        client_id: 'desk',
        token_endpoint_auth_method: 'none',
        grant_types: ['authorization_code'],
        response_types: ['code'],
        redirect_uris: ['https://127.0.0.1/desk'],
        id_token_signed_response_alg: 'ES256',
      },
    ],
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    // What a real directory would say of the user.
    extraTokenClaims: (_, token) => {
      const name = token.accountId?.replace('id-of-', '') ?? token.clientId;
      return { preferred_username: name, groups: users[name] ?? [] };
    },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:sso',
        useGrantedResource: () => true,
        getResourceServerInfo: (_, resource) => ({
          scope: 'sso',
          audience: resource === 'urn:sso' ? 'sso' : resource,
          accessTokenTTL: 300,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
    pkce: { required: () => true },
  };
}

// The user that login_hint names is who logs in, and consents to all that is asked.
async function interact(provider, request, response) {
  const { params, prompt, session } = await provider.interactionDetails(request, response);
  if (prompt.name === 'login') {
    const login = { accountId: `id-of-${params.login_hint}` };
    return provider.interactionFinished(request, response, { login });
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope('openid');
  grant.addResourceScope(params.resource, 'sso');
  const consent = { grantId: await grant.save() };
  return provider.interactionFinished(request, response, { consent }, { mergeWithLastSubmission: true });
}

let issuer;
let serve;

function begin() {
  const jwk = newKey();
  const provider = new Provider(issuer, configuration(jwk));
  const callback = provider.callback();
  serve = (request, response) => {
    if (!request.url.startsWith('/interaction/')) return callback(request, response);
    return interact(provider, request, response).catch((error) => {
      response.statusCode = 500;
      response.end(String(error));
    });
  };
  return jwk.kid;
}

const options = { cert: readFileSync(certificate), key: readFileSync(key) };
const server = createServer(options, (request, response) => serve(request, response));
server.listen(Number(wanted), '127.0.0.1', () => {
  issuer = `https://127.0.0.1:${server.address().port}`;
  begin();
  console.log(JSON.stringify({ issuer }));
  const lines = createInterface({ input: process.stdin });
  lines.on('line', () => console.log(JSON.stringify({ rotated: begin() })));
  lines.on('close', () => process.exit(0));
});
