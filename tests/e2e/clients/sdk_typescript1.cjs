// A client on the TypeScript SDK 1.x: `node sdk_typescript1.cjs CALLS`, see plot.py; NODE_PATH has the packages.
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");

async function main() {
  const { OSTIARY_URL, OSTIARY_TOKEN } = process.env;
  const requestInit = { headers: { Authorization: `Bearer ${OSTIARY_TOKEN}` } };
  const transport = new StreamableHTTPClientTransport(new URL(`${OSTIARY_URL}/mcp`), { requestInit });
  const client = new Client({ name: "clerk", version: "1.0.0" });
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
