// Two accounts, one for each payer, and what their clients ask for.
//
// `byok` has a key, no credits and nothing to fall back on; `credits` has credits and no key.

export const URL = process.env.GRETA_URL;
export const BASE_URL = `${URL}/v1`;
export const MODEL = "openai/gpt-4o-mini";
export const HELLO = [{ role: "user", content: "Hello" }];
export const ANSWER = /to: Hello$/;
export const PARAMETERS = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "integer", minimum: 2 } },
  required: ["city", "days"],
  additionalProperties: false,
};
export const TOOL = {
  type: "function",
  function: { name: "weather", description: "The weather", parameters: PARAMETERS },
};
export const FORECAST = { city: "Hello", days: 2 };

// A request that fails: its model, and the status and code of the response.
export const ERRORS = {
  byok: [
    ["sim/status-402", 402, "openrouter_payment_required"],
    ["sim/status-403-moderation", 403, "openrouter_request_refused"],
    ["sim/status-404", 404, "openrouter_request_rejected"],
    ["sim/status-429", 429, "openrouter_rate_limited"],
    ["sim/status-500", 502, "openrouter_unavailable"],
    ["sim/context-length", 400, "context_length_exceeded"],
  ],
  credits: [
    ["no/such-model", 400, "model_not_priced"],
    ["sim-priced/status-429", 429, "default_ai_rate_limited"],
    ["sim-priced/status-500", 502, "default_ai_unavailable"],
    ["sim-priced/context-length", 400, "context_length_exceeded"],
  ],
};
export const BROKEN = { byok: "sim/mid/oas-502", credits: "sim-priced/mid/oas-502" };
export const PAYERS = ["byok", "credits"];

async function send(method, path, body, token) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const response = await fetch(`${URL}${path}`, { method, headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status}`);
  return response.json();
}

async function account(name, state) {
  await send("PUT", `/_dev/accounts/${name}`, state);
  const { token } = await send("POST", "/_dev/token", { account_id: name, role: "owner" });
  return token;
}

export async function tokens() {
  const byok = await account("clients-byok", { plan: "enterprise", credits: "0" });
  // Keys can be saved only a few times an hour.
  if ((await send("GET", "/v1/integrations/openrouter", undefined, byok)).key === null) {
    const key = { key: "sk-or-v1-clients-0123456789abcdef" };
    await send("PUT", "/v1/integrations/openrouter/key", key, byok);
  }
  return {
    byok,
    credits: await account("clients-credits", { plan: "standard", credits: "50" }),
    poor: await account("clients-poor", { plan: "standard", credits: "0" }),
    none: "not-a-token",
  };
}
