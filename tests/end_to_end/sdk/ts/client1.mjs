// The client of @modelcontextprotocol/sdk 1.x: revisions up to 2025-11-25.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
  ResourceUpdatedNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { answers, main } from "./steps.mjs";

async function connect(script, inbox, fetch) {
  const client = new Client(
    { name: "interop-ts1", version: "1.0.0" },
    { capabilities: { elicitation: {}, sampling: {}, roots: { listChanged: true } } },
  );
  client.setRequestHandler(ElicitRequestSchema, ({ params }) => {
    inbox.add("asked", { method: "elicitation/create", message: params.message });
    return { action: "accept", content: script.content };
  });
  client.setRequestHandler(CreateMessageRequestSchema, () => {
    inbox.add("asked", { method: "sampling/createMessage" });
    return answers.sample;
  });
  client.setRequestHandler(ListRootsRequestSchema, () => answers.roots);
  client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => inbox.add("logs", params));
  client.setNotificationHandler(ResourceUpdatedNotificationSchema, ({ params }) => inbox.add("updates", params.uri));
  const headers = script.token === null ? {} : { authorization: `Bearer ${script.token}` };
  const transport = new StreamableHTTPClientTransport(new URL(script.url), { fetch, requestInit: { headers } });
  await client.connect(transport);
  return {
    client,
    transport,
    inbox,
    callTool: (parameters, options) => client.callTool(parameters, undefined, options),
    opened: {
      revision: transport.protocolVersion,
      server: client.getServerVersion()?.name ?? null,
      capabilities: Object.keys(client.getServerCapabilities()).sort(),
    },
  };
}

await main(connect);
