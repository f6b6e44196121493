// The client of @modelcontextprotocol/sdk 1.x over HTTP+SSE, the transport of 2024-11-05: URL, token and what the user answers as arguments.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const [url, token, content] = process.argv.slice(2);
const say = (step, value) => console.log(JSON.stringify({ step, value }));

const client = new Client({ name: "interop-sse", version: "1.0.0" }, { capabilities: { elicitation: {} } });
client.setRequestHandler(ElicitRequestSchema, () => ({ action: "accept", content: JSON.parse(content) }));
await client.connect(new SSEClientTransport(new URL(url), { requestInit: { headers: { authorization: `Bearer ${token}` } } }));

say("tools", (await client.listTools()).tools.map((tool) => tool.name));
say("call", await client.callTool({ name: "get_forecast", arguments: { city: "Oslo" } }));
const progress = [];
await client.callTool({ name: "stream_forecast", arguments: { city: "Oslo" } }, undefined, {
  onprogress: (event) => progress.push(event.progress),
});
say("progress", progress);
say("asked", await client.callTool({ name: "plan_trip", arguments: { city: "Oslo" } }));
say("afterwards", await client.callTool({ name: "get_forecast", arguments: { city: "Oslo" } }));
await client.close();
