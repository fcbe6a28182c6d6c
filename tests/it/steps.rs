//! A process, seen from outside as a series of I/O steps, that dies at one of them.

use std::future::pending;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;

/// The steps of one process so far. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Steps(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    names: Mutex<Vec<String>>,
    dies_at: usize,
    dead: watch::Sender<bool>,
}

impl Steps {
    /// The process dies when it reaches step `dies_at`, counted from 0.
    pub(crate) fn until(dies_at: usize) -> Self {
        Self(Arc::new(Inner { names: Mutex::default(), dies_at, dead: watch::Sender::new(false) }))
    }

    /// The process reaches a step. At the fatal step and after it, this never returns.
    pub(crate) async fn step(&self, name: &str) {
        let number = {
            let mut names = self.0.names.lock().unwrap();
            names.push(name.to_owned());
            names.len() - 1
        };
        if number >= self.0.dies_at {
            self.0.dead.send_replace(true);
            pending::<()>().await;
        }
    }

    /// Waits for the process's death.
    pub(crate) async fn death(&self) {
        let mut dead = self.0.dead.subscribe();
        dead.wait_for(|dead| *dead).await.unwrap();
    }

    /// The steps in order, up to the fatal one.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.0.names.lock().unwrap();
        let lived = names.len().min(self.0.dies_at.saturating_add(1));
        names[..lived].to_vec()
    }
}

/// Sits between the process and an upstream: each request, each response head and each event is a
/// step.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    upstream: String,
    http: reqwest::Client,
    steps: Arc<Mutex<Option<Steps>>>,
}

impl Relay {
    /// Starts a relay in front of `upstream` (its root URL, without a path); returns the relay's
    /// own root.
    pub(crate) async fn start(upstream: String) -> (Self, String) {
        let relay = Self {
            upstream,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            steps: Arc::default(),
        };
        let router = Router::new().fallback(forward).with_state(relay.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let root = format!("http://{}", listener.local_addr().unwrap());
        edge::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (relay, root)
    }

    /// Counts the steps of the next process.
    pub(crate) fn count(&self, steps: &Steps) {
        *self.steps.lock().unwrap() = Some(steps.clone());
    }
}

async fn forward(State(relay): State<Relay>, request: Request) -> Response {
    let steps = relay.steps.lock().unwrap().clone().unwrap();
    let (parts, body) = request.into_parts();
    let what = format!("{} {}", parts.method, parts.uri.path());
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    steps.step(&format!("{what} request")).await;
    let url = format!("{}{}", relay.upstream, parts.uri);
    let sent = relay.http.request(parts.method, url);
    let answer = sent.headers(parts.headers).body(body).send().await.unwrap();
    steps.step(&format!("{what} head")).await;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut partial = BytesMut::new();
    let parts = answer.bytes_stream().map(Some).chain(stream::once(async { None }));
    let chunks = parts.flat_map(move |part| {
        let events = match part {
            Some(Ok(chunk)) => events(&mut partial, &chunk).into_iter().map(Ok).collect(),
            Some(Err(error)) => vec![Err(error)],
            None if partial.is_empty() => Vec::new(),
            None => vec![Ok(partial.split().freeze())],
        };
        stream::iter(events)
    });
    let chunks = chunks.then(move |chunk| {
        let (steps, what) = (steps.clone(), what.clone());
        async move {
            steps.step(&format!("{what} chunk")).await;
            chunk
        }
    });
    let mut response = Response::new(Body::from_stream(chunks));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The events that a chunk completes, so that the result does not depend on the chunking.
fn events(partial: &mut BytesMut, chunk: &[u8]) -> Vec<Bytes> {
    partial.extend_from_slice(chunk);
    let mut events = Vec::new();
    while let Some(end) = partial.windows(2).position(|window| window == b"\n\n") {
        events.push(partial.split_to(end + 2).freeze());
    }
    events
}
