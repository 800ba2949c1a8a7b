// The walk of an integrator: typed by the contract, compiled under --strict, sent by plain fetch.
import type { components, paths } from "./client";

declare const process: { env: Record<string, string | undefined>; exitCode?: number };

type Schemas = components["schemas"];
type Created<P extends keyof paths, S extends 200 | 201> = paths[P] extends {
  post: { responses: { [status in S]: { content: { "application/json": infer Answer } } } };
}
  ? Answer
  : never;

const base = process.env.BOOGA ?? "";
const key = process.env.BOOGA_KEY ?? "";

async function send<Answer>(method: string, path: string, expected: number, body?: unknown): Promise<Answer> {
  const response = await fetch(base + path, {
    method,
    headers: { "X-API-Key": key, "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  if (response.status !== expected) {
    throw new Error(`${method} ${path}: ${response.status} ${text}`);
  }
  return (text ? JSON.parse(text) : undefined) as Answer;
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

async function walk(): Promise<void> {
  const personas = await send<Schemas["PersonaPage"]>("GET", "/api/v1/chat/personas", 200);
  const stack = personas.results[0]!.stack_id;
  const wanted: Schemas["PersonaCreate"] = { name: `TypeScript ${Date.now()}`, stack_id: stack };
  const persona = await send<Created<"/api/v1/chat/personas", 201>>("POST", "/api/v1/chat/personas", 201, wanted);
  const begin: Schemas["SessionCreate"] = { persona_id: persona.id };
  const session = await send<Created<"/api/v1/chat/sessions", 201>>("POST", "/api/v1/chat/sessions", 201, begin);
  const at = `/api/v1/chat/sessions/${session.id}`;
  const question: Schemas["MessageCreate"] = { content: "What was revenue in 2025?" };
  const reply = await send<Schemas["Message"]>("POST", `${at}/messages`, 201, question);
  check(reply.role === "assistant" && reply.status === "complete", "no whole reply");
  const history = await send<Schemas["SessionHistory"]>("GET", `${at}/history`, 200);
  check(history.messages.length === 2 && history.messages[1]!.id === reply.id, "the history is another");
  const verdict = await send<{ rating: string }>("PUT", `${at}/messages/${reply.id}/feedback`, 200, { rating: "helpful" });
  check(verdict.rating === "helpful", "the verdict is another");
  await send<void>("DELETE", at, 204);
  await send<Schemas["Problem"]>("GET", at, 404);
  await send<void>("DELETE", `/api/v1/chat/personas/${persona.id}`, 204);
}

walk().catch((fault: unknown) => {
  console.error(fault);
  process.exitCode = 1;
});
