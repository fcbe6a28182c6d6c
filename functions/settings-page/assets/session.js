// Signing in: OpenID Connect, authorization code with PKCE, by top-level redirects.
//
// Invariant: the tokens are only in this module's memory. Between two redirects, the browser's
// storage has the code verifier and the return address.

import { ErrorResponse, OidcClient, WebStorageStateStore } from "./oidc.js";

// A token that expires within this time is not sent, because it might expire on the way.
const RESERVE_MS = 5_000;

// The authority's errors if the user has to act on its page.
const SIGN_IN_REQUIRED = ["login_required", "interaction_required", "consent_required", "account_selection_required"];

export class Session {
  #oidc;
  #tokens;
  // The running renewal: a refresh token may be valid only once.
  #renewing;

  constructor({ authority, clientId }) {
    // The redirect returns to the page that the user left.
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

  // The claims of the signed-in user, or null if the user has to sign in; throws any other error.
  // The first call redirects to the authority, without showing a page, and never returns.
  async begin() {
    const query = new URLSearchParams(location.search);
    if (!query.has("error") && !(query.has("state") && query.has("code"))) {
      return this.#leave({ prompt: "none" }, (url) => location.replace(url));
    }
    const callback = location.href;
    // A sign-in that another tab began, or that was already completed, is ignored.
    const begun = await this.#oidc.readSigninResponseState(callback, false).catch(() => null);
    this.#restoreAddress(begun?.state.data);
    if (!begun) return null;
    try {
      return this.#keep(await this.#oidc.processSigninResponse(callback));
    } catch (error) {
      if (error instanceof ErrorResponse && SIGN_IN_REQUIRED.includes(error.error)) return null;
      throw error;
    }
  }

  // Goes to the authority's login page.
  signIn() {
    return this.#leave({});
  }

  // Goes to the authority and back, without showing a page if it still knows the user.
  renew() {
    return this.#leave({ prompt: "none" });
  }

  // Returns false if the authority has no way to sign out, so that only this page forgets the user.
  async signOut() {
    const idToken = this.#tokens?.id_token;
    this.#tokens = null;
    if (!(await this.#oidc.metadataService.getEndSessionEndpoint())) return false;
    const request = await this.#oidc.createSignoutRequest({ id_token_hint: idToken });
    location.assign(request.url);
    return gone();
  }

  // The access token, or null if none is valid. `refresh`: the API did not accept the last one.
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
      // The refresh token is no longer valid.
      this.#tokens = { ...this.#tokens, refresh_token: undefined };
      return null;
    }
  }

  #keep(response) {
    const { access_token, refresh_token = this.#tokens?.refresh_token, id_token, expires_at, profile } = response;
    this.#tokens = { access_token, refresh_token, id_token, expires_at, profile, scope: "openid" };
    return profile;
  }

  async #leave(options, go = (url) => location.assign(url)) {
    const request = await this.#oidc.createSigninRequest({
      request_type: "si:r",
      state: { query: withoutCallback(location.search), hash: location.hash },
      ...options,
    });
    go(request.url);
    return gone();
  }

  // Restores the address from before the redirect.
  #restoreAddress(left) {
    history.replaceState(null, "", `${location.pathname}${left?.query ?? ""}${left?.hash ?? ""}`);
  }
}

function withoutCallback(search) {
  const query = new URLSearchParams(search);
  for (const name of ["code", "state", "error", "error_description", "iss", "session_state"]) query.delete(name);
  const text = query.toString();
  return text ? `?${text}` : "";
}

// Never resolves: the page is being left.
function gone() {
  return new Promise(() => {});
}
