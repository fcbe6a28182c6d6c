// Calls to Greta's API on behalf of whoever `getToken` says is signed in.
//
// Invariant: nothing is kept here, neither the token nor a key: both come as arguments and leave with
// the request.

// Longer than the API's own limits, so that its answer is awaited rather than guessed.
const TIME_OUT_MS = 60_000;

// The API refused: `code` is from the contract's list, `detail` its words.
export class Refused extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail || problem.title || `status ${status}`);
    this.status = status;
    this.code = problem.code || "unreadable_answer";
    // Whole seconds, or null.
    this.retryAfter = retryAfter;
  }
}

// No answer: offline, or nobody listens.
export class Unreachable extends Error {}

// There is no token that the API accepts.
export class SignInRequired extends Error {}

export class Client {
  #base;
  #getToken;

  // `base`: the API's base URL, with a slash at its end. `getToken({refresh})`: a token or null, also as
  // a promise; `refresh` is true where the API did not accept the last one.
  constructor(base, getToken) {
    this.#base = base;
    this.#getToken = getToken;
  }

  integration() {
    return this.#call("GET", "v1/integrations/openrouter");
  }

  switch(switches) {
    return this.#call("PATCH", "v1/integrations/openrouter", switches);
  }

  saveKey(key) {
    return this.#call("PUT", "v1/integrations/openrouter/key", { key });
  }

  testKey() {
    return this.#call("POST", "v1/integrations/openrouter/key/test");
  }

  disconnect() {
    return this.#call("DELETE", "v1/integrations/openrouter/key");
  }

  subscribe() {
    return this.#call("POST", "v1/integrations/openrouter/subscription");
  }

  cancelSubscription() {
    return this.#call("DELETE", "v1/integrations/openrouter/subscription");
  }

  replaceCard() {
    return this.#call("POST", "v1/integrations/openrouter/subscription/payment-method");
  }

  credits() {
    return this.#call("GET", "v1/credits");
  }

  ledger(limit, cursor) {
    const query = new URLSearchParams({ limit });
    if (cursor) query.set("cursor", cursor);
    return this.#call("GET", `v1/credits/ledger?${query}`);
  }

  daily(days) {
    return this.#call("GET", `v1/credits/daily?days=${days}`);
  }

  buyCredits(usd) {
    return this.#call("POST", "v1/credits/checkout", { usd });
  }

  async #call(method, path, body) {
    // A refused token has had no effect, so that the call can be made again with another one.
    for (const refresh of [false, true]) {
      const token = await orUnreachable(() => this.#getToken({ refresh }));
      if (!token) continue;
      const response = await orUnreachable(() => this.#send(method, path, body, token));
      if (response.status === 401) continue;
      if (response.ok) return orUnreachable(() => response.json());
      const problem = await response.json().catch(() => ({}));
      throw new Refused(response.status, problem, seconds(response.headers.get("retry-after")));
    }
    throw new SignInRequired("a sign-in is needed");
  }

  #send(method, path, body, token) {
    const headers = { authorization: `Bearer ${token}` };
    if (body) headers["content-type"] = "application/json";
    return fetch(new URL(path, this.#base), {
      method,
      headers,
      body: body && JSON.stringify(body),
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
      referrerPolicy: "no-referrer",
      signal: AbortSignal.timeout(TIME_OUT_MS),
    });
  }
}

async function orUnreachable(ask) {
  try {
    return await ask();
  } catch (cause) {
    throw new Unreachable("no answer", { cause });
  }
}

function seconds(text) {
  return /^\d+$/.test(text ?? "") ? Number(text) : null;
}
