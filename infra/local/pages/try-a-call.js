// A panel of `cargo dev`: makes an AI call as the signed-in user and shows the receipt, to see how
// the switches route it.

const HEADERS = {
  "x-greta-payer": "Payer",
  "x-greta-route-reason": "Reason",
  "x-greta-model": "Model",
  "x-greta-call-id": "Call",
};

// Appends the panel to `parent`. `root` is the API's base URL, `getToken` the elements' function.
export function mount(parent, { root, getToken }) {
  const panel = document.createElement("section");
  panel.className = "try";
  panel.setAttribute("aria-labelledby", "try-title");
  const style = new CSSStyleSheet();
  style.replaceSync(STYLE);
  document.adoptedStyleSheets.push(style);
  panel.append(
    element("h2", { id: "try-title", textContent: "Try a call" }),
    element("p", { textContent: "Only on this machine: a simulator responds, but the routing is real." }),
  );
  const form = element("form");
  const prompt = element("input", { id: "try-prompt", value: "Hello", autocomplete: "off" });
  const model = element("input", { id: "try-model", placeholder: "the default; sim/status-429 falls back", autocomplete: "off" });
  const send = element("button", { type: "submit", textContent: "Call" });
  form.append(label("Prompt", prompt), label("Model", model), send);
  const answer = element("output", { htmlFor: "try-prompt" });
  answer.setAttribute("aria-live", "polite");
  const receipt = element("dl");
  panel.append(form, answer, receipt);
  parent.append(panel);

  let pending = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (pending) return;
    pending = true;
    send.setAttribute("aria-disabled", "true");
    answer.textContent = "";
    receipt.replaceChildren();
    try {
      await call(root, await getToken(), prompt.value, model.value.trim(), { answer, receipt });
    } catch (error) {
      answer.textContent = `No answer: ${error.message}`;
    }
    pending = false;
    send.removeAttribute("aria-disabled");
    // Makes the page's elements reload.
    const channel = new BroadcastChannel("greta-openrouter");
    channel.postMessage("changed");
    channel.close();
  });
}

async function call(root, token, prompt, model, { answer, receipt }) {
  const body = { stream: true, messages: [{ role: "user", content: prompt }] };
  if (model) body.model = model;
  const response = await fetch(new URL("v1/chat/completions", root), {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  for (const [name, title] of Object.entries(HEADERS)) fact(receipt, title, response.headers.get(name));
  if (!response.ok) {
    const { error, detail } = await response.json();
    fact(receipt, "Refused", `${response.status} ${error?.type ?? ""}`);
    answer.textContent = error?.message ?? detail;
    return;
  }
  for await (const chunk of chunks(response.body)) {
    answer.textContent += chunk.choices?.[0]?.delta?.content ?? "";
    if (chunk.error) fact(receipt, "Failed", chunk.error.type ?? chunk.error.code);
    if (chunk.greta) fact(receipt, "Credits charged", chunk.greta.credits_charged);
  }
}

// The JSON of a stream's events.
async function* chunks(body) {
  const text = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await text.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const data = line.startsWith("data: ") ? line.slice(6).trim() : "[DONE]";
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

function fact(list, title, value) {
  if (value === null || value === undefined) return;
  list.append(element("dt", { textContent: title }), element("dd", { textContent: value }));
}

function label(text, input) {
  const field = element("label", { textContent: text });
  field.append(input);
  return field;
}

function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}

const STYLE = `
.try { margin-top: 1.25rem; padding: clamp(1rem, 4vw, 1.75rem); border: 1px dashed light-dark(#8a8ea3, #767b92); border-radius: 0.9rem; }
.try h2 { font-size: 1.25rem; margin: 0; }
.try form { display: grid; gap: 0.75rem; margin-block: 1rem; }
.try label { display: grid; gap: 0.3rem; font-weight: 600; }
.try input { font: inherit; font-weight: 400; min-height: 2.75rem; padding: 0.5rem 0.75rem; width: 100%; color: inherit; background: light-dark(#fff, #1b1d27); border: 1px solid light-dark(#8a8ea3, #767b92); border-radius: 0.55rem; }
.try input::placeholder { color: light-dark(#5a5e72, #a9adc2); opacity: 1; }
.try button { justify-self: start; }
.try output { display: block; white-space: pre-wrap; overflow-wrap: anywhere; min-height: 1.5em; }
.try dl { display: grid; grid-template-columns: auto 1fr; gap: 0.25rem 1rem; margin: 0.75rem 0 0; }
.try dt { color: light-dark(#5a5e72, #a9adc2); }
.try dd { margin: 0; overflow-wrap: anywhere; }
`;
