// Who is signed in: OpenID Connect, authorization code with PKCE, by top-level redirects.
//
// Invariant: the tokens are in this module's memory only; what the storage of the browser has between two
// redirects is the code verifier and where to go back to.

import { ErrorResponse, OidcClient, WebStorageStateStore } from "./oidc.js";

// A token that is about to expire would do so on its way.
const RESERVE_MS = 5_000;

// What the authority answers where somebody has to do something on its page.
const NOBODY = ["login_required", "interaction_required", "consent_required", "account_selection_required"];

export class Session {
  #oidc;
  #tokens;
  // The renewal under way: a refresh token may be good for one only.
  #renewing;

  constructor({ authority, clientId }) {
    // The way back is to the page that was left, since only it can go on where it was.
    const here = new URL(location.pathname, location.href).href;
    this.#oidc = new OidcClient({
      authority,
      client_id: clientId,
      redirect_uri: here,
      post_logout_redirect_uri: here,
      scope: "openid",
      loadUserInfo: false,
      requestTimeoutInSeconds: 15,
      stateStore: new WebStorageStateStore({ store: sessionStorage }),
    });
  }

  // The signed-in user's claims, or null where somebody has to sign in; throws what went wrong on the way.
  // Asks the authority, without showing anything, on the first way through; never comes back then.
  async begin() {
    const query = new URLSearchParams(location.search);
    if (!query.has("error") && !(query.has("state") && query.has("code"))) {
      return this.#leave({ prompt: "none" }, (url) => location.replace(url));
    }
    const answer = location.href;
    // Not begun in this tab, or answered before: nothing can be made of it.
    const begun = await this.#oidc.readSigninResponseState(answer, false).catch(() => null);
    this.#comeBack(begun?.state.data);
    if (!begun) return null;
    try {
      return this.#keep(await this.#oidc.processSigninResponse(answer));
    } catch (error) {
      if (error instanceof ErrorResponse && NOBODY.includes(error.error)) return null;
      throw error;
    }
  }

  // To the authority's login page.
  signIn() {
    return this.#leave({});
  }

  // To the authority and back, without a page of its own if it still knows the user.
  renew() {
    return this.#leave({ prompt: "none" });
  }

  // False where only this page forgets the user, since the authority has no way to.
  async signOut() {
    const idToken = this.#tokens?.id_token;
    this.#tokens = null;
    if (!(await this.#oidc.metadataService.getEndSessionEndpoint())) return false;
    const request = await this.#oidc.createSignoutRequest({ id_token_hint: idToken });
    location.assign(request.url);
    return gone();
  }

  // The access token, or null where there is none that the API would accept. `refresh`: it did not accept
  // the last one.
  getToken = async ({ refresh = false } = {}) => {
    if (!this.#tokens) return null;
    const lasts = Date.now() + RESERVE_MS < (this.#tokens.expires_at ?? Infinity) * 1000;
    if (lasts && !refresh) return this.#tokens.access_token;
    if (!this.#tokens.refresh_token) return null;
    this.#renewing ??= this.#refresh().finally(() => (this.#renewing = null));
    return this.#renewing;
  };

  async #refresh() {
    try {
      this.#keep(await this.#oidc.useRefreshToken({ state: this.#tokens }));
      return this.#tokens.access_token;
    } catch (error) {
      if (!(error instanceof ErrorResponse)) throw error;
      // It is not good any more.
      this.#tokens = { ...this.#tokens, refresh_token: undefined };
      return null;
    }
  }

  #keep(answer) {
    const { access_token, refresh_token = this.#tokens?.refresh_token, id_token, expires_at, profile } = answer;
    this.#tokens = { access_token, refresh_token, id_token, expires_at, profile, scope: "openid" };
    return profile;
  }

  async #leave(options, go = (url) => location.assign(url)) {
    const request = await this.#oidc.createSigninRequest({
      request_type: "si:r",
      state: { query: withoutAnswer(location.search), hash: location.hash },
      ...options,
    });
    go(request.url);
    return gone();
  }

  // The address as it was before the redirect.
  #comeBack(left) {
    history.replaceState(null, "", `${location.pathname}${left?.query ?? ""}${left?.hash ?? ""}`);
  }
}

function withoutAnswer(search) {
  const query = new URLSearchParams(search);
  for (const name of ["code", "state", "error", "error_description", "iss", "session_state"]) query.delete(name);
  const text = query.toString();
  return text ? `?${text}` : "";
}

// Never resolves: the page is being left.
function gone() {
  return new Promise(() => {});
}
