// A client on the TypeScript SDK 2.x: `node sdk_typescript2.cjs CALLS`, see plot.py; NODE_PATH has the packages.
// With MCP_MODE=auto it looks for the stateless revision first; its own default is the handshake.
const { Client, StreamableHTTPClientTransport } = require("@modelcontextprotocol/client");

async function main() {
  const { OSTIARY_URL, OSTIARY_TOKEN, MCP_MODE: mode } = process.env;
  const requestInit = { headers: { Authorization: `Bearer ${OSTIARY_TOKEN}` } };
  const transport = new StreamableHTTPClientTransport(new URL(`${OSTIARY_URL}/mcp`), { requestInit });
  const client = new Client({ name: "clerk", version: "1.0.0" }, { versionNegotiation: { mode } });
  await client.connect(transport);
  const offered = (await client.listTools()).tools.map((tool) => tool.name);
  const seen = [];
  for (const [name, wished] of JSON.parse(process.argv[2])) {
    const known = [...seen.join("\n").matchAll(/approval_id\W+([\w-]+)/g)].pop()?.[1];
    const filled = Object.entries(wished).map(([key, value]) => [key, value === "@approval" ? known : value]);
    const result = await client.callTool({ name, arguments: Object.fromEntries(filled) });
    seen.push(result.content[0].text);
  }
  await client.close();
  console.log(JSON.stringify({ offered, seen, output: "finished" }));
}

main();
