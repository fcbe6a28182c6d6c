// Greta's API, called with the token that `getToken` returns.
//
// Invariant: neither a token nor a key is stored here; both exist only as long as their request.

// Longer than the API's own time limits, so that the API's response always comes first.
const TIME_OUT_MS = 60_000;

// An error response of the API; `code` is from the list in section 3 of the contract.
export class ApiError extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail || problem.title || `status ${status}`);
    this.status = status;
    this.code = problem.code || "unreadable_response";
    // Whole seconds, or null.
    this.retryAfter = retryAfter;
  }
}

// No response: the browser is offline, or the API is down.
export class Unreachable extends Error {}

// The API accepts no token that `getToken` returns.
export class SignInRequired extends Error {}

export class Client {
  #base;
  #getToken;

  // `base`: the API's base URL, with a trailing slash. `getToken({refresh})`: a token or null, or a
  // promise of one; `refresh` is true if the API did not accept the last token.
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
    // A 401 has no effect, so the call can be repeated with a new token.
    for (const refresh of [false, true]) {
      const token = await orUnreachable(() => this.#getToken({ refresh }));
      if (!token) continue;
      const response = await orUnreachable(() => this.#send(method, path, body, token));
      if (response.status === 401) continue;
      if (response.ok) return orUnreachable(() => response.json());
      const problem = await response.json().catch(() => ({}));
      throw new ApiError(response.status, problem, seconds(response.headers.get("retry-after")));
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

async function orUnreachable(request) {
  try {
    return await request();
  } catch (cause) {
    throw new Unreachable("no response", { cause });
  }
}

function seconds(text) {
  return /^\d+$/.test(text ?? "") ? Number(text) : null;
}
