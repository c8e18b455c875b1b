// A service at which persons have accounts (npm: oidc-provider): `node accounts.mjs PORT [alone]`; says where it is on stdout.
// As it comes, revoking an access token takes all tokens of the same consent along; `alone`: that one only.
// Refresh tokens are rotated: a second use of one revokes all that hangs off it. GET /me is its API, GET /journal what it was asked.
import { createServer } from "node:http";
import { exportJWK, generateKeyPair } from "jose";
import Provider from "oidc-provider";

const journal = [];
let handle;
const server = createServer((request, answer) => {
  if (request.url === "/journal") return answer.end(JSON.stringify(journal));
  return handle(request, answer);
});

async function provider(issuer) {
  const { privateKey } = await generateKeyPair("RS256", { extractable: true });
  const made = new Provider(issuer, {
    jwks: { keys: [{ ...(await exportJWK(privateKey)), use: "sig", alg: "RS256" }] },
    clients: [
      {
        client_id: "ostiary",
        client_secret: "the-clients-own-s3cret",
        grant_types: ["authorization_code", "refresh_token"],
        redirect_uris: ["http://127.0.0.1/callback/hub"],
        response_types: ["code"],
        application_type: "native",
      },
    ],
    scopes: ["openid", "offline_access", "repo:read", "repo:write"],
    features: { devInteractions: { enabled: true }, revocation: { enabled: true }, introspection: { enabled: true } },
    issueRefreshToken: async () => true,
    rotateRefreshToken: () => true,
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    ttl: { AccessToken: 600, AuthorizationCode: 60, RefreshToken: 3600, Grant: 3600, Interaction: 600, Session: 600 },
    cookies: { keys: [crypto.randomUUID()] },
  });
  if (process.argv[3] === "alone") {
    const { AccessToken, AuthorizationCode, RefreshToken } = made;
    for (const kind of [AccessToken, AuthorizationCode, RefreshToken]) {
      const whole = kind.revokeByGrantId;
      kind.revokeByGrantId = async (id) => (Provider.ctx?.oidc.entities.AccessToken ? undefined : whole.call(kind, id));
    }
  }
  made.on("access_token.saved", (token) => journal.push({ did: "issued", who: token.accountId, scope: token.scope }));
  made.on("access_token.destroyed", (token) => journal.push({ did: "revoked", who: token.accountId }));
  made.on("refresh_token.consumed", (token) => journal.push({ did: "refreshed", who: token.accountId }));
  made.on("grant.revoked", () => journal.push({ did: "grant revoked" }));
  made.on("grant.error", (_, error) => journal.push({ did: "refused", why: error.error_description ?? error.message }));
  return made.callback();
}

server.listen(Number(process.argv[2]), "127.0.0.1", async () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  handle = await provider(issuer);
  process.stdout.write(`${JSON.stringify({ issuer })}\n`);
});
