// The client of @modelcontextprotocol/client 2.x: 2026-07-28, and the revisions before it when asked to or when the
// server has no other.
import { Client, LOG_LEVEL_META_KEY, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { answers, main } from "./steps.mjs";

async function connect(script, inbox, fetch) {
  const client = new Client(
    { name: "interop-ts2", version: "1.0.0" },
    {
      capabilities: { elicitation: {}, sampling: {}, roots: { listChanged: true } },
      versionNegotiation: { mode: script.era === "modern" ? "auto" : "legacy" },
    },
  );
  client.setRequestHandler("elicitation/create", ({ params }) => {
    inbox.add("asked", { method: "elicitation/create", message: params.message });
    return { action: "accept", content: script.content };
  });
  client.setRequestHandler("sampling/createMessage", () => {
    inbox.add("asked", { method: "sampling/createMessage" });
    return answers.sample;
  });
  client.setRequestHandler("roots/list", () => answers.roots);
  client.setNotificationHandler("notifications/message", ({ params }) => inbox.add("logs", params));
  client.setNotificationHandler("notifications/resources/updated", ({ params }) => inbox.add("updates", params.uri));
  const headers = script.token === null ? {} : { authorization: `Bearer ${script.token}` };
  const transport = new StreamableHTTPClientTransport(new URL(script.url), { fetch, requestInit: { headers } });
  await client.connect(transport);
  const modern = client.getProtocolEra() === "modern";
  const _meta = modern ? { [LOG_LEVEL_META_KEY]: "info" } : undefined;
  return {
    client,
    transport,
    inbox,
    callTool: (parameters, options) => client.callTool({ ...parameters, _meta }, options),
    opened: {
      revision: client.getNegotiatedProtocolVersion(),
      server: client.getServerVersion()?.name ?? null,
      capabilities: Object.keys(client.getServerCapabilities()).sort(),
    },
  };
}

await main(connect);
