//! A small `OpenID` Connect provider, whose login page lists the demo accounts.
//!
//! Authorization code with PKCE only, for pages on this machine. Sessions and codes are in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edge::{ApiError, Clock, Code};
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, COOKIE, HeaderValue, SET_COOKIE};
use http::{HeaderMap, StatusCode, Uri};
use maud::{Markup, html};
use serde_json::json;
use url::Url;
use url::form_urlencoded;

use crate::accounts;
use crate::html::page;
use crate::issuer::{Issuer, JWKS_PATH};
use crate::serve::{self, is_loopback};

/// The client id of the pages.
pub(crate) const CLIENT_ID: &str = "greta-pages";
const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";
const AUTHORIZE_PATH: &str = "/_dev/oidc/authorize";
const TOKEN_PATH: &str = "/_dev/oidc/token";
const END_SESSION_PATH: &str = "/_dev/oidc/end-session";
const COOKIE_NAME: &str = "greta_dev_session";
const TOKEN_SECONDS: u64 = 3600;
const MAX_BODY: usize = 16 * 1024;

#[derive(Clone)]
pub(crate) struct SignIn {
    issuer: Issuer,
    clock: Clock,
    jwks_url: String,
    sessions: Arc<Mutex<Sessions>>,
}

#[derive(Default)]
struct Sessions {
    /// By the cookie's value.
    users: HashMap<String, User>,
    codes: HashMap<String, Grant>,
}

#[derive(Clone)]
struct User {
    account: String,
    role: String,
    token_seconds: u64,
}

struct Grant {
    user: User,
    redirect_uri: String,
    challenge: String,
    nonce: Option<String>,
}

impl SignIn {
    pub(crate) fn new(issuer: Issuer, clock: Clock, jwks: &str) -> Self {
        Self {
            issuer,
            clock,
            jwks_url: format!("{jwks}{JWKS_PATH}"),
            sessions: Arc::default(),
        }
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route(DISCOVERY_PATH, get(discovery))
            .route(AUTHORIZE_PATH, get(authorize).post(choose))
            .route(TOKEN_PATH, post(token))
            .route(END_SESSION_PATH, get(end_session))
            .with_state(self)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The URL that returns to the client, with a code for `user`.
    fn grant(&self, request: &AuthorizationRequest, user: User) -> Url {
        let code = edge::random_id("code");
        let grant = Grant {
            user,
            redirect_uri: request.redirect_uri.to_string(),
            challenge: request.challenge.clone(),
            nonce: request.nonce.clone(),
        };
        self.sessions().codes.insert(code.clone(), grant);
        request.return_url(&[("code", &code)])
    }
}

async fn discovery(State(sign_in): State<SignIn>) -> Response {
    let issuer = sign_in.issuer.issuer();
    let at = |path: &str| format!("{issuer}{path}");
    cors(serve::json(
        StatusCode::OK,
        &json!({
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
        }),
    ))
}

struct AuthorizationRequest {
    parameters: HashMap<String, String>,
    redirect_uri: Url,
    challenge: String,
    nonce: Option<String>,
    state: Option<String>,
}

impl AuthorizationRequest {
    fn read(text: &str) -> Result<Self, ApiError> {
        let parameters = parameters(text);
        let get = |name: &str| parameters.get(name).cloned();
        let redirect_uri = get("redirect_uri").and_then(|uri| Url::parse(&uri).ok());
        let redirect_uri = redirect_uri
            .filter(|uri| is_loopback(uri.host_str().unwrap_or_default()))
            .ok_or_else(|| refused("`redirect_uri` must be a page on this machine"))?;
        if get("client_id").as_deref() != Some(CLIENT_ID) {
            return Err(refused("unknown `client_id`"));
        }
        if get("response_type").as_deref() != Some("code") {
            return Err(refused("`response_type` must be `code`"));
        }
        if get("code_challenge_method").as_deref() != Some("S256") {
            return Err(refused("`code_challenge_method` must be `S256`"));
        }
        let challenge = get("code_challenge");
        Ok(Self {
            challenge: challenge.ok_or_else(|| refused("`code_challenge` is missing"))?,
            nonce: get("nonce"),
            state: get("state"),
            redirect_uri,
            parameters,
        })
    }

    fn is_silent(&self) -> bool {
        let prompt = self.parameters.get("prompt");
        prompt.is_some_and(|prompt| prompt == "none")
    }

    fn return_url(&self, response: &[(&str, &str)]) -> Url {
        let mut url = self.redirect_uri.clone();
        url.query_pairs_mut()
            .extend_pairs(response)
            .extend_pairs(self.state.as_ref().map(|state| ("state", state)));
        url
    }
}

/// Returns at once if a user is signed in or nobody may be asked; else shows the login page.
async fn authorize(
    State(sign_in): State<SignIn>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let request = AuthorizationRequest::read(uri.query().unwrap_or_default())?;
    let user = session(&headers).and_then(|id| sign_in.sessions().users.get(&id).cloned());
    Ok(match user {
        Some(user) => see_other(&sign_in.grant(&request, user)),
        None if request.is_silent() => {
            see_other(&request.return_url(&[("error", "login_required")]))
        }
        None => Html(login_page(&request).into_string()).into_response(),
    })
}

/// Signs in the account that was chosen on the login page.
async fn choose(State(sign_in): State<SignIn>, body: Body) -> Result<Response, ApiError> {
    let body = edge::read_body(body, MAX_BODY).await?;
    let text = String::from_utf8_lossy(&body);
    let request = AuthorizationRequest::read(&text)?;
    let get = |name: &str| request.parameters.get(name).map(String::as_str);
    let (account, role) = match (get("as"), get("account_id")) {
        (Some(choice), _) => choice.split_once(' ').unwrap_or((choice, "owner")),
        (None, Some(account)) => (account, get("role").unwrap_or("owner")),
        (None, None) => return Err(refused("no account was chosen")),
    };
    let account =
        account::AccountId::new(account.trim()).map_err(|error| refused(error.to_string()))?;
    let seconds = get("token_seconds").and_then(|text| text.parse().ok());
    let user = User {
        account: account.to_string(),
        role: role.to_owned(),
        token_seconds: seconds.unwrap_or(TOKEN_SECONDS),
    };
    let id = edge::random_id("session");
    sign_in.sessions().users.insert(id.clone(), user.clone());
    let mut response = see_other(&sign_in.grant(&request, user));
    set_session(&mut response, &id, "");
    Ok(response)
}

async fn token(State(sign_in): State<SignIn>, body: Body) -> Result<Response, ApiError> {
    let body = edge::read_body(body, MAX_BODY).await?;
    let request = parameters(&String::from_utf8_lossy(&body));
    let get = |name: &str| request.get(name).map(String::as_str).unwrap_or_default();
    let grant = sign_in.sessions().codes.remove(get("code"));
    let verifier = digest(&SHA256, get("code_verifier").as_bytes());
    let proof = URL_SAFE_NO_PAD.encode(verifier.as_ref());
    let grant = grant.filter(|grant| {
        get("grant_type") == "authorization_code"
            && grant.challenge == proof
            && grant.redirect_uri == get("redirect_uri")
    });
    let Some(Grant { user, nonce, .. }) = grant else {
        let error = json!({"error": "invalid_grant"});
        return Ok(cors(serve::json(StatusCode::BAD_REQUEST, &error)));
    };
    let now = sign_in.clock.now();
    let lifetime = Duration::from_secs(user.token_seconds);
    let (account, role) = (&user.account, &user.role);
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
    Ok(cors(serve::json(
        StatusCode::OK,
        &json!({
            "access_token": sign_in.issuer.token(account, role, now, lifetime),
            "id_token": id_token,
            "token_type": "Bearer",
            "expires_in": user.token_seconds,
            "scope": "openid",
        }),
    )))
}

async fn end_session(
    State(sign_in): State<SignIn>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    if let Some(id) = session(&headers) {
        sign_in.sessions().users.remove(&id);
    }
    let parameters = parameters(uri.query().unwrap_or_default());
    let back = parameters.get("post_logout_redirect_uri");
    let back = back.and_then(|uri| Url::parse(uri).ok());
    let back = back.filter(|uri| is_loopback(uri.host_str().unwrap_or_default()));
    let mut response = match back {
        Some(back) => see_other(&back),
        None => Html("<!doctype html><title>Signed out</title><p>Signed out.</p>").into_response(),
    };
    set_session(&mut response, "", "; Max-Age=0");
    Ok(response)
}

/// A choice of accounts. The form repeats the request, which then goes on with the choice.
fn login_page(request: &AuthorizationRequest) -> Markup {
    let hidden = html! {
        @for (name, value) in &request.parameters {
            input type="hidden" name=(name) value=(value);
        }
    };
    let body = html! {
        h1 { "Sign in as" }
        form method="post" action=(AUTHORIZE_PATH) {
            (hidden)
            @for (id, description, _) in &accounts::DEMO {
                @for role in ["owner", "member"] {
                    button name="as" value={ (id) " " (role) } {
                        (id) ", " (role) br; span.note { (description) }
                    }
                }
            }
        }
        form method="post" action=(AUTHORIZE_PATH) {
            (hidden)
            h1 { "or as somebody else" }
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

fn parameters(text: &str) -> HashMap<String, String> {
    form_urlencoded::parse(text.as_bytes())
        .into_owned()
        .collect()
}

fn session(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get(COOKIE)?.to_str().ok()?;
    let mut cookies = cookies
        .split(';')
        .filter_map(|cookie| cookie.trim().split_once('='));
    let (_, id) = cookies.find(|(name, _)| *name == COOKIE_NAME)?;
    Some(id.to_owned())
}

fn set_session(response: &mut Response, id: &str, end: &str) {
    let cookie = format!("{COOKIE_NAME}={id}; Path=/_dev/oidc; HttpOnly; SameSite=Lax{end}");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
}

fn see_other(url: &Url) -> Response {
    Redirect::to(url.as_str()).into_response()
}

/// Lets pages of any origin read the response, which depends on no cookie.
fn cors(mut response: Response) -> Response {
    let all = HeaderValue::from_static("*");
    response
        .headers_mut()
        .insert(ACCESS_CONTROL_ALLOW_ORIGIN, all);
    response
}

fn refused(detail: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(Code::InvalidRequest, detail)
}
