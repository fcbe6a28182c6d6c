//! A small `OpenID` Connect provider, whose login page lists the demo accounts.
//!
//! Authorization code with PKCE only, for pages on this machine. Sessions and codes are in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use account::AccountId;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{Form, Query, RawQuery, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edge::{ApiError, Clock, Code};
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, COOKIE, SET_COOKIE};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::accounts;
use crate::guard::is_loopback;
use crate::html::page;
use crate::issuer::{Issuer, JWKS_PATH};

pub(crate) const CLIENT_ID: &str = "greta-pages";
const AUTHORIZE_PATH: &str = "/_dev/oidc/authorize";
const TOKEN_PATH: &str = "/_dev/oidc/token";
const END_SESSION_PATH: &str = "/_dev/oidc/end-session";
const COOKIE_NAME: &str = "greta_dev_session";
const TOKEN_SECONDS: u64 = 3600;

#[derive(Clone)]
pub(crate) struct SignIn {
    issuer: Issuer,
    clock: Clock,
    jwks_url: String,
    sessions: Arc<Mutex<Sessions>>,
}

#[derive(Default)]
struct Sessions {
    users: HashMap<String, User>,
    /// The user and request of each code.
    codes: HashMap<String, (User, AuthorizationRequest)>,
}

/// An account and its role, from a button or from the fields of the login page.
#[derive(Clone, Deserialize)]
struct User {
    account_id: AccountId,
    role: String,
    token_seconds: Option<u64>,
}

impl SignIn {
    pub(crate) fn new(issuer: Issuer, clock: Clock, jwks: &str) -> Self {
        Self { issuer, clock, jwks_url: format!("{jwks}{JWKS_PATH}"), sessions: Arc::default() }
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route(AUTHORIZE_PATH, get(authorize).post(choose))
            .route(TOKEN_PATH, post(token))
            .route(END_SESSION_PATH, get(end_session))
            .with_state(self)
    }

    /// Returns to the client with a code for `user`.
    fn grant(&self, request: AuthorizationRequest, user: User) -> Redirect {
        let code = edge::random_id("code");
        let redirect = request.redirect("code", &code);
        self.sessions.lock().unwrap().codes.insert(code, (user, request));
        redirect
    }
}

async fn discovery(State(sign_in): State<SignIn>) -> Response {
    let issuer = sign_in.issuer.issuer();
    let at = |path: &str| format!("{issuer}{path}");
    cors(json!({
        "issuer": issuer,
        "authorization_endpoint": at(AUTHORIZE_PATH),
        "token_endpoint": at(TOKEN_PATH),
        "end_session_endpoint": at(END_SESSION_PATH),
        "jwks_uri": sign_in.jwks_url,
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
    }))
}

#[derive(Deserialize)]
struct AuthorizationRequest {
    client_id: String,
    response_type: String,
    redirect_uri: Url,
    code_challenge: String,
    code_challenge_method: String,
    nonce: Option<String>,
    state: Option<String>,
    prompt: Option<String>,
}

impl AuthorizationRequest {
    fn check(&self) -> Result<(), ApiError> {
        let problem = if !is_local(&self.redirect_uri) {
            "`redirect_uri` must be a page on this machine"
        } else if self.client_id != CLIENT_ID {
            "unknown `client_id`"
        } else if self.response_type != "code" {
            "`response_type` must be `code`"
        } else if self.code_challenge_method != "S256" {
            "`code_challenge_method` must be `S256`"
        } else {
            return Ok(());
        };
        Err(ApiError::new(Code::InvalidRequest, problem))
    }

    /// Returns to the client with this parameter.
    fn redirect(&self, name: &str, value: &str) -> Redirect {
        let mut url = self.redirect_uri.clone();
        let state = self.state.as_ref().map(|state| ("state", state.as_str()));
        let parameters = [(name, value)].into_iter().chain(state);
        url.query_pairs_mut().extend_pairs(parameters);
        Redirect::to(url.as_str())
    }
}

/// Returns at once if a user is signed in or no page may be shown; else shows the login page.
async fn authorize(
    State(sign_in): State<SignIn>,
    Query(request): Query<AuthorizationRequest>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    request.check()?;
    let user =
        session(&headers).and_then(|id| sign_in.sessions.lock().unwrap().users.get(id).cloned());
    Ok(match user {
        Some(user) => sign_in.grant(request, user).into_response(),
        None if request.prompt.as_deref() == Some("none") => {
            request.redirect("error", "login_required").into_response()
        }
        None => Html(login_page(&query.unwrap_or_default()).into_string()).into_response(),
    })
}

/// Signs in the account that was chosen on the login page.
async fn choose(
    State(sign_in): State<SignIn>,
    Query(request): Query<AuthorizationRequest>,
    Form(user): Form<User>,
) -> Result<Response, ApiError> {
    request.check()?;
    let id = edge::random_id("session");
    sign_in.sessions.lock().unwrap().users.insert(id.clone(), user.clone());
    Ok((set_session(&id, ""), sign_in.grant(request, user)).into_response())
}

#[derive(Deserialize)]
struct TokenRequest {
    grant_type: String,
    code: String,
    code_verifier: String,
    redirect_uri: Url,
}

async fn token(State(sign_in): State<SignIn>, Form(request): Form<TokenRequest>) -> Response {
    let grant = sign_in.sessions.lock().unwrap().codes.remove(&request.code);
    let proof = digest(&SHA256, request.code_verifier.as_bytes());
    let grant = grant.filter(|(_, authorized)| {
        request.grant_type == "authorization_code"
            && authorized.code_challenge == URL_SAFE_NO_PAD.encode(proof.as_ref())
            && authorized.redirect_uri == request.redirect_uri
    });
    let Some((user, AuthorizationRequest { nonce, .. })) = grant else {
        let error = cors(json!({"error": "invalid_grant"}));
        return (StatusCode::BAD_REQUEST, error).into_response();
    };
    let now = sign_in.clock.now();
    let seconds = user.token_seconds.unwrap_or(TOKEN_SECONDS);
    let lifetime = Duration::from_secs(seconds);
    let (account, role) = (user.account_id.as_str(), &user.role);
    let issued = now.as_second();
    let id_token = sign_in.issuer.sign(json!({
        "iss": sign_in.issuer.issuer(),
        "aud": CLIENT_ID,
        "sub": format!("user_{account}_{role}"),
        "account_id": account,
        "role": role,
        "nonce": nonce,
        "iat": issued,
        "exp": issued.saturating_add_unsigned(TOKEN_SECONDS),
    }));
    cors(json!({
        "access_token": sign_in.issuer.token(account, role, now, lifetime),
        "id_token": id_token,
        "token_type": "Bearer",
        "expires_in": seconds,
        "scope": "openid",
    }))
}

#[derive(Deserialize)]
struct EndSession {
    post_logout_redirect_uri: Option<Url>,
}

async fn end_session(
    State(sign_in): State<SignIn>,
    Query(request): Query<EndSession>,
    headers: HeaderMap,
) -> Response {
    if let Some(id) = session(&headers) {
        sign_in.sessions.lock().unwrap().users.remove(id);
    }
    let signed_out = set_session("", "; Max-Age=0");
    match request.post_logout_redirect_uri.filter(is_local) {
        Some(url) => (signed_out, Redirect::to(url.as_str())).into_response(),
        None => (signed_out, Html("<!doctype html><title>Signed out</title><p>Signed out.</p>"))
            .into_response(),
    }
}

/// A choice of accounts, for the request with this query.
fn login_page(query: &str) -> Markup {
    let action = format!("{AUTHORIZE_PATH}?{query}");
    let body = html! {
        h1 { "Sign in as" }
        @for (id, description, _) in &accounts::DEMO {
            @for role in ["owner", "member"] {
                form method="post" action=(action) {
                    input type="hidden" name="account_id" value=(id);
                    button name="role" value=(role) {
                        (id) ", " (role) br; span.note { (description) }
                    }
                }
            }
        }
        form method="post" action=(action) {
            h1 { "or as someone else" }
            label for="account" { "Account" }
            input #account name="account_id";
            label for="role" { "Role" }
            select #role name="role" { option { "owner" } option { "member" } }
            label for="seconds" { "Token lifetime in seconds" }
            input #seconds name="token_seconds" value=(TOKEN_SECONDS);
            button.pay { "Sign in" }
        }
        p.note { "A simulated sign-in, on this machine only." }
    };
    page("Sign in (simulated)", &body)
}

fn is_local(url: &Url) -> bool {
    is_loopback(url.host_str().unwrap_or_default())
}

fn session(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get(COOKIE)?.to_str().ok()?.split(';');
    let mut cookies = cookies.filter_map(|cookie| cookie.trim().split_once('='));
    let (_, id) = cookies.find(|(name, _)| *name == COOKIE_NAME)?;
    Some(id)
}

fn set_session(id: &str, end: &str) -> impl axum::response::IntoResponseParts {
    let cookie = format!("{COOKIE_NAME}={id}; Path=/_dev/oidc; HttpOnly; SameSite=Lax{end}");
    axum::response::AppendHeaders([(SET_COOKIE, cookie)])
}

/// A response that every page admitted by the guard may read, because it depends on no cookie.
fn cors(body: Value) -> Response {
    ([(ACCESS_CONTROL_ALLOW_ORIGIN, "*")], Json(body)).into_response()
}
