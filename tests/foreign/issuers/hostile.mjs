// An issuer that signs whatever it is told to (npm: oauth2-mock-server): `node hostile.mjs PORT`; says where it is on stdout.
// The form member `mutate` of a token request is JSON {"header": {...}, "payload": {...}} laid over the token before it is
// signed; null takes a member out.
import { OAuth2Server } from "oauth2-mock-server";

const server = new OAuth2Server();
await server.issuer.keys.generate("RS256");
await server.start(Number(process.argv[2]), "127.0.0.1");
server.issuer.url = `http://127.0.0.1:${server.address().port}`;

function laid(over, onto) {
  for (const [name, value] of Object.entries(over ?? {})) {
    if (value === null) delete onto[name];
    else onto[name] = value;
  }
}

server.service.on("beforeTokenSigning", (token, request) => {
  const wish = JSON.parse(request.body.mutate ?? "{}");
  laid(wish.header, token.header);
  laid(wish.payload, token.payload);
});
process.stdout.write(`${JSON.stringify({ issuer: server.issuer.url })}\n`);
