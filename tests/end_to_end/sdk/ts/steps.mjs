// Runs a script of steps with one client, and prints a JSON line for each: what came back, how long it took, and the
// HTTP exchanges that it needed.  The two clients differ in `connect` alone.

/** The answers that a test user and a test model give. */
export const answers = {
  sample: { role: "assistant", model: "interop", content: { type: "text", text: "Sunny." }, stopReason: "endTurn" },
  roots: { roots: [{ uri: "file:///srv/interop", name: "interop" }] },
};

/** Where what the server sends on its own accord is kept. */
export class Inbox {
  logs = [];
  updates = [];
  asked = [];
  #waiting = [];

  add(list, item) {
    this[list].push(item);
    this.#waiting.splice(0).forEach((wake) => wake());
  }

  /** Waits until a list holds `count` items, or the time is over. */
  async holds(list, count, milliseconds) {
    const end = performance.now() + milliseconds;
    while (this[list].length < count && performance.now() < end) {
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, end - performance.now());
        this.#waiting.push(() => (clearTimeout(timer), resolve()));
      });
    }
    return this[list];
  }
}

/** A fetch that records every exchange, and can spoil one request on purpose. */
export function recordingFetch(exchanges, spoil) {
  return async (url, init = {}) => {
    const headers = new Headers(init.headers);
    let { body } = init;
    if (init.method === "POST") {
      if (spoil.token !== undefined) headers.set("authorization", `Bearer ${spoil.token}`);
      if (spoil.body === "truncated") body = body.slice(0, -2);
      if (spoil.body === "duplicate") body = body.replace('"jsonrpc"', '"method":"ping","jsonrpc"');
    }
    const exchange = { http: init.method ?? "GET" };
    exchanges.push(exchange);
    const response = await fetch(url, { ...init, body, headers });
    exchange.status = response.status;
    exchange.type = response.headers.get("content-type");
    return response;
  };
}

const text = (content) => content.map((part) => part.text ?? `<${part.type}>`).join("\n");

function problem(error) {
  const told = { name: error.name, code: error.code, message: error.message };
  if (error.data !== undefined) told.data = error.data;
  if (error.cause !== undefined) told.cause = String(error.cause.message ?? error.cause);
  return told;
}

const verbs = {
  async list({ client }, { what }) {
    if (what === "tools") return { names: (await client.listTools()).tools.map((tool) => tool.name) };
    if (what === "resources") return { names: (await client.listResources()).resources.map((it) => it.uri) };
    if (what === "prompts") return { names: (await client.listPrompts()).prompts.map((it) => it.name) };
    return { names: (await client.listResourceTemplates()).resourceTemplates.map((it) => it.uriTemplate) };
  },

  async call({ callTool, inbox }, step) {
    const began = performance.now();
    const progress = [];
    const options = { timeout: 10_000 };
    if (step.progress) {
      options.onprogress = ({ progress: done, total, message }) =>
        progress.push({ at: (performance.now() - began) / 1000, progress: done, total, message });
    }
    if (step.cancelAfter) options.signal = AbortSignal.timeout(step.cancelAfter * 1000);
    const parameters = { name: step.name, arguments: { ...step.arguments } };
    if (step.pad) parameters.arguments.pad = "x".repeat(step.pad);
    const asked = inbox.asked.length;
    const result = await callTool(parameters, options);
    return {
      text: text(result.content),
      structured: result.structuredContent,
      isError: result.isError ?? false,
      asked: inbox.asked.slice(asked),
      progress,
    };
  },

  async repeat(session, { times, step }) {
    for (let done = 0; done < times; done++) {
      try {
        await verbs[step.do](session, step);
      } catch (error) {
        return { done, error: problem(error) };
      }
    }
    return { done: times };
  },

  async read({ client }, { uri }) {
    const [content] = (await client.readResource({ uri })).contents;
    return { uri: content.uri, text: content.text, blob: content.blob };
  },

  // A server learns of a cancellation some time after the client has turned away.
  async until(session, { uri, text: wanted, seconds }) {
    const end = performance.now() + seconds * 1000;
    for (;;) {
      const seen = await verbs.read(session, { uri });
      if (seen.text.includes(wanted) || performance.now() > end) return seen;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  },

  async prompt({ client }, { name, arguments: values }) {
    const { messages } = await client.getPrompt({ name, arguments: values });
    return { messages: messages.map(({ role, content }) => [role, content.text]) };
  },

  async complete({ client }, { ref, argument }) {
    return { values: (await client.complete({ ref, argument })).completion.values };
  },

  async level({ client }, { level }) {
    await client.setLoggingLevel(level);
  },

  async logs({ inbox }, { count, seconds }) {
    return { logs: await inbox.holds("logs", count, seconds * 1000) };
  },

  async subscribe({ client }, { uri }) {
    await client.subscribeResource({ uri });
  },

  async updates({ inbox }, { count, seconds }) {
    return { updates: await inbox.holds("updates", count, seconds * 1000) };
  },

  async watch(session, { uri, by }) {
    const subscription = await session.client.listen({ resourceSubscriptions: [uri] });
    try {
      await verbs.call(session, by);
      return { updates: await session.inbox.holds("updates", 1, 2000) };
    } finally {
      await subscription.close();
    }
  },

  async ping({ client }) {
    await client.ping();
  },

  async pause(_session, { seconds }) {
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  },

  async close({ client, transport }) {
    const id = transport.sessionId;
    await transport.terminateSession();
    await client.close();
    return { session: id !== undefined };
  },
};

/** Runs the script in the first argument: `{url, era, token, content, steps}`. */
export async function main(connect) {
  const script = JSON.parse(process.argv[2]);
  const exchanges = [];
  const spoil = {};
  const inbox = new Inbox();
  const print = (step, began, outcome) => {
    const line = { step, seconds: (performance.now() - began) / 1000, ...outcome, exchanges: exchanges.splice(0) };
    process.stdout.write(`${JSON.stringify(line)}\n`);
  };
  let session;
  let began = performance.now();
  try {
    session = await connect(script, inbox, recordingFetch(exchanges, spoil));
    print("open", began, { value: session.opened });
  } catch (error) {
    print("open", began, { error: problem(error) });
    process.exit(0);
  }
  for (const step of script.steps) {
    began = performance.now();
    Object.assign(spoil, { token: undefined, body: undefined }, step.spoil);
    try {
      print(step.as ?? step.do, began, { value: (await verbs[step.do](session, step)) ?? {} });
    } catch (error) {
      print(step.as ?? step.do, began, { error: problem(error) });
    }
  }
  process.exit(0);
}
