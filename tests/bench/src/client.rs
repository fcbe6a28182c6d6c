//! The client: one connection, one call at a time, each moment recorded.

use std::net::Ipv4Addr;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::stats::Nanos;
use crate::{Error, nanos_since, nanoseconds};

/// A place to send calls to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) path: &'static str,
    pub(crate) token: String,
}

/// A call's moments, in nanoseconds from its start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moments {
    pub(crate) head: Nanos,
    pub(crate) first_byte: Nanos,
    pub(crate) first_content: Nanos,
    pub(crate) end: Nanos,
    /// For each chunk, from its creation to its arrival.
    pub(crate) transits: Vec<Nanos>,
}

/// A response as it arrives, chunk by chunk.
pub(crate) struct Reading {
    started: Instant,
    moments: Moments,
    buffer: BytesMut,
}

impl Reading {
    pub(crate) fn since(started: Instant) -> Self {
        Self { started, moments: Moments::default(), buffer: BytesMut::new() }
    }

    pub(crate) fn head(&mut self) {
        self.moments.head = nanos_since(self.started);
    }

    pub(crate) fn chunk(&mut self, chunk: &[u8]) {
        let (now, read_at) = (nanos_since(self.started), nanoseconds());
        if self.moments.first_byte == 0 {
            self.moments.first_byte = now;
        }
        self.buffer.extend_from_slice(chunk);
        while let Some(end) = memchr::memmem::find(&self.buffer, b"\n\n") {
            let event = self.buffer.split_to(end + 2);
            if let Some(created_at) = created_at(&event) {
                if self.moments.first_content == 0 {
                    self.moments.first_content = now;
                }
                self.moments.transits.push(read_at.saturating_sub(created_at));
            }
        }
    }

    pub(crate) fn end(mut self) -> Moments {
        self.moments.end = nanos_since(self.started);
        self.moments
    }
}

pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
}

impl Connection {
    pub(crate) async fn to(target: &Target) -> Result<Self, Error> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, target.port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        edge::spawn(async move {
            // If it breaks, the call reports why.
            let _ = connection.await;
        });
        Ok(Self { sender, target: target.clone() })
    }

    /// Sends one call with this body; returns once the response's head has arrived.
    pub(crate) async fn send(&mut self, body: &Bytes) -> Result<Incoming, Error> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.target.path)
            .header(HOST, "127.0.0.1")
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, &self.target.token)
            .body(Full::from(body.clone()))?;
        let response = self.sender.send_request(request).await?;
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        let status = response.status();
        let text = response.into_body().collect().await?.to_bytes();
        Err(format!("{status}: {}", String::from_utf8_lossy(&text)).into())
    }

    /// Makes one call with this body and reads the response to its end.
    pub(crate) async fn call(&mut self, body: &Bytes) -> Result<Moments, Error> {
        let mut reading = Reading::since(Instant::now());
        let mut answer = self.send(body).await?;
        reading.head();
        while let Some(frame) = answer.frame().await {
            if let Ok(chunk) = frame?.into_data() {
                reading.chunk(&chunk);
            }
        }
        let moments = reading.end();
        // The connection is free only once its task has seen the end.
        self.sender.ready().await?;
        Ok(moments)
    }
}

/// When upstream created this event, if it is a chunk with content.
fn created_at(event: &[u8]) -> Option<Nanos> {
    let name = b"\"created_at\":";
    let at = memchr::memmem::find(event, name)? + name.len();
    let digits = event.get(at..)?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}
