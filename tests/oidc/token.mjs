// Gets an access token from the provider, as a program would, and prints it.
//
//   node token.mjs ISSUER service            client credentials of the program "service"
//   node token.mjs ISSUER USER [AUDIENCE]    authorization code with PKCE, logged in as USER
//
// NODE_EXTRA_CA_CERTS names the authority of the provider.
import { createHash, randomBytes } from 'node:crypto';

const [issuer, who, resource = 'urn:sso'] = process.argv.slice(2);
const cookies = new Map();

async function call(url, options = {}) {
  const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
  const headers = { ...options.headers, ...(cookie && { cookie }) };
  const response = await fetch(url, { ...options, headers, redirect: 'manual' });
  for (const line of response.headers.getSetCookie()) {
    const [name, value] = line.split(';')[0].split('=');
    if (value) cookies.set(name, value);
    else cookies.delete(name);
  }
  return response;
}

async function token(parameters, headers = {}) {
  const response = await call(`${issuer}/token`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
    body: new URLSearchParams(parameters),
  });
  const answer = await response.json();
  if (!answer.access_token) throw new Error(JSON.stringify(answer));
  return answer.access_token;
}

async function ofService() {
  const basic = Buffer.from('service:of-this-test-only').toString('base64');
  return token({ grant_type: 'client_credentials', scope: 'sso', resource }, { authorization: `Basic ${basic}` });
}

async function ofUser() {
  const verifier = randomBytes(32).toString('base64url');
  const redirect = 'https://127.0.0.1/desk';
  let next = `${issuer}/auth?${new URLSearchParams({
    client_id: 'desk',
    response_type: 'code',
    scope: 'openid sso',
    resource,
    login_hint: who,
    redirect_uri: redirect,
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
  })}`;
  for (let step = 0; step < 12 && !next.startsWith(redirect); step += 1) {
    const response = await call(next);
    const location = response.headers.get('location');
    if (!location) throw new Error(`${response.status} at ${next}: ${await response.text()}`);
    next = new URL(location, issuer).href;
  }
  const code = new URL(next).searchParams.get('code');
  if (!code) throw new Error(`no code in ${next}`);
  return token({
    grant_type: 'authorization_code', client_id: 'desk', code, redirect_uri: redirect, code_verifier: verifier, resource,
  });
}

process.stdout.write(await (who === 'service' ? ofService() : ofUser()));
