// mcp-proxy's own parts put together as its documentation says: peer_npm.mjs PORT URL
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { Server } from "@modelcontextprotocol/server";
import { proxyServer, startHTTPServer } from "mcp-proxy";

const [, , port, url] = process.argv;
const client = new Client({ name: "bench", version: "1" }, { capabilities: {} });
await client.connect(new StreamableHTTPClientTransport(new URL(url)));

await startHTTPServer({
  host: "127.0.0.1",
  port: Number(port),
  stateless: true,
  createServer: async () => {
    const capabilities = client.getServerCapabilities();
    const server = new Server(client.getServerVersion(), { capabilities });
    await proxyServer({ server, client, serverCapabilities: capabilities });
    return server;
  },
});
