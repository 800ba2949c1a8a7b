// A bot's page: asks by the public service, follows the reply's events, and shows all text as text.
const page = document.querySelector("main");
const talk = document.querySelector("[role=log]");
const told = document.querySelector("[role=status]");
const form = document.querySelector("form");
const field = form.querySelector("textarea");
const api = `/api/v1/embed/${page.dataset.key}`;
const theme = JSON.parse(page.dataset.theme);
for (const name of ["primary_color", "text_color", "background_color"]) {
  if (theme[name]) document.documentElement.style.setProperty(`--${name}`, theme[name]);
}

// Kept for this tab, so that a page loaded anew goes on; a frame may be refused its storage.
let visit = null;
try {
  visit = JSON.parse(sessionStorage.getItem(api));
} catch {}

function keep(session, token) {
  visit = { session, token };
  try {
    sessionStorage.setItem(api, JSON.stringify(visit));
  } catch {}
}

class Refused extends Error {}

async function refusal(answer) {
  const problem = await answer.json().catch(() => ({}));
  return new Refused(problem.detail || "The server does not answer as it should.");
}

async function begin() {
  const headers = visit ? { Authorization: `Bearer ${visit.token}` } : {};
  let answer = await fetch(`${api}/sessions`, { method: "POST", headers });
  if (answer.status === 401 && visit) answer = await fetch(`${api}/sessions`, { method: "POST" });
  if (!answer.ok) throw await refusal(answer);
  const { session_id: session, visitor_token: token } = await answer.json();
  const isSame = visit?.session === session;
  keep(session, token);
  return isSame;
}

// A call of the present conversation; its token is renewed as answers bring newer ones, and once it ran out.
async function call(path, { method = "GET", body, headers = {} } = {}, again = true) {
  const answer = await fetch(`${api}/sessions/${visit.session}${path}`, {
    method,
    headers: {
      ...headers,
      Authorization: `Bearer ${visit.token}`,
      ...(body ? { "Content-Type": "application/json" } : {}),
    },
    body: body && JSON.stringify(body),
  });
  if (answer.status === 401 && again) {
    await begin();
    return call(path, { method, body, headers }, false);
  }
  if (!answer.ok) throw await refusal(answer);
  const renewed = answer.headers.get("X-Visitor-Token");
  if (renewed) keep(visit.session, renewed);
  return answer;
}

function element(name, text, parent, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  parent.append(made);
  return made;
}

function bubble(role, text) {
  const made = element("article", "", talk, role);
  element("p", text, made);
  made.scrollIntoView({ block: "end" });
  return made;
}

function place({ document_name: name, page: number, sheet, cell, heading }) {
  const where = number ? `page ${number}` : [sheet, cell || heading].filter(Boolean).join(" ");
  return where ? `${name}, ${where}` : name;
}

function show(message, made) {
  made.querySelector("p").textContent = message.content;
  if (message.error) element("p", message.error.detail, made, "fault");
  for (const citation of message.citations.filter((one) => one.cited)) {
    const source = element("details", "", made);
    element("summary", `[${citation.number}] ${place(citation)}`, source);
    element("blockquote", citation.quote, source);
  }
  if ("feedback" in page.dataset) judge(message, made);
  made.scrollIntoView({ block: "end" });
}

function judge(message, made) {
  const buttons = ["Helpful", "Unhelpful"].map((word) => {
    const button = element("button", word, made, "rating");
    const rating = word.toLowerCase();
    button.type = "button";
    button.setAttribute("aria-pressed", String(message.feedback?.rating === rating));
    button.addEventListener("click", async () => {
      try {
        await call(`/messages/${message.id}/feedback`, { method: "PUT", body: { rating } });
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      } catch (fault) {
        tell(fault);
      }
    });
    return button;
  });
}

function tell(fault) {
  told.textContent = fault instanceof Refused ? fault.message : "The server does not answer. Try again.";
}

// The events of a stream (WHATWG HTML, 9.2), one at a time.
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    const whole = held.split("\n\n");
    held = whole.pop();
    for (const one of whole) {
      const fields = Object.fromEntries(one.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (fields.event) yield { name: fields.event, id: fields.id, data: JSON.parse(fields.data) };
    }
  }
}

// Follow a reply to its end; a line that is lost is taken up where it broke.
async function follow(answer, made) {
  let last = null;
  for (let lost = 0; lost < 5; lost += 1) {
    try {
      for await (const event of events(answer)) {
        last = event.id;
        if (event.name === "message.delta") made.querySelector("p").textContent += event.data.text;
        if (event.name === "message.completed") return show(event.data, made);
        if (event.name === "message.failed") throw new Refused(event.data.detail);
        made.scrollIntoView({ block: "end" });
      }
    } catch (fault) {
      if (fault instanceof Refused || last === null) throw fault;
    }
    await new Promise((later) => setTimeout(later, 500));
    answer = await call("/stream", { headers: last ? { "Last-Event-ID": last } : {} });
  }
  throw new Refused("The line to the server broke.");
}

async function ask(content) {
  told.textContent = "";
  form.querySelector("button").disabled = true;
  document.querySelector(".suggestions")?.remove();
  bubble("user", content);
  const made = bubble("assistant", "");
  made.setAttribute("aria-busy", "true");
  try {
    if (!visit) await begin();
    await follow(await call("/stream", { method: "POST", body: { content } }), made);
  } catch (fault) {
    if (!made.textContent) made.remove();
    tell(fault);
  }
  made.removeAttribute("aria-busy");
  form.querySelector("button").disabled = false;
  field.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const content = field.value.trim();
  if (!content || form.querySelector("button").disabled) return;
  field.value = "";
  ask(content);
});
field.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});
for (const button of document.querySelectorAll(".suggestions button")) {
  button.addEventListener("click", () => ask(button.textContent));
}

// What was said before, where this tab goes on with it.
async function recall() {
  if (!(await begin())) return;
  for (let number = 1, isLast = false; !isLast; number += 1) {
    const { results, next } = await (await call(`/messages?page_size=100&page=${number}`)).json();
    isLast = next === null;
    if (results.length) document.querySelector(".suggestions")?.remove();
    for (const message of results) {
      if (message.role === "user" && !message.content) continue; // it was refused, and nothing of it kept
      const made = bubble(message.role, message.content);
      if (message.role === "assistant" && message.status !== "streaming") show(message, made);
    }
  }
}
if (visit) recall().catch(tell);
