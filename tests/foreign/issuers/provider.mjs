// A real OpenID provider (npm: oidc-provider) for one gateway: `node provider.mjs PORT AUDIENCE`; says where it is on stdout.
// Access tokens for AUDIENCE are JWTs (RFC 9068). SIGUSR2 replaces its signing keys.
import { createServer } from "node:http";
import { exportJWK, generateKeyPair } from "jose";
import Provider from "oidc-provider";

const [port, audience] = [Number(process.argv[2]), process.argv[3]];
const server = createServer((request, answer) => handle(request, answer));
let handle;

async function keys() {
  const { privateKey } = await generateKeyPair("RS256", { extractable: true });
  return [{ ...(await exportJWK(privateKey)), use: "sig", alg: "RS256", kid: crypto.randomUUID() }];
}

async function provider(issuer) {
  const made = new Provider(issuer, {
    jwks: { keys: await keys() },
    clients: [
      {
        client_id: "planner",
        client_secret: "planner-s3cret",
        grant_types: ["client_credentials"],
        redirect_uris: [],
        response_types: [],
      },
      {
        client_id: "ostiary-cli",
        token_endpoint_auth_method: "none",
        grant_types: ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
        redirect_uris: [],
        response_types: [],
        application_type: "native",
      },
    ],
    scopes: ["openid", "offline_access", "tools", "runs"],
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: "tools runs",
          audience,
          accessTokenTTL: 600,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg: "RS256" } },
        }),
      },
    },
    extraTokenClaims: () => ({ groups: ["desk"] }),
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    ttl: { ClientCredentials: 600, AccessToken: 600, DeviceCode: 600, Grant: 600, Interaction: 600, Session: 600 },
    cookies: { keys: [crypto.randomUUID()] },
  });
  return made.callback();
}

server.listen(port, "127.0.0.1", async () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  handle = await provider(issuer);
  process.on("SIGUSR2", async () => {
    handle = await provider(issuer);
    process.stdout.write(`${JSON.stringify({ rotated: true })}\n`);
  });
  process.stdout.write(`${JSON.stringify({ issuer })}\n`);
});
