//! A server that writes raw responses, so that they can be broken.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use url::form_urlencoded;

#[derive(Debug, Clone)]
pub(super) enum Reply {
    Bytes(String),
    /// Half of a response, then the end of the connection.
    Half(String),
    /// No response, and the end of the connection.
    Close,
    /// No response, and an open connection.
    Silence,
}

impl Reply {
    pub(super) fn raw(status: u16, body: &str) -> Self {
        let length = body.len();
        Self::Bytes(format!(
            "HTTP/1.1 {status} x\r\nRequest-Id: req_1\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::raw(status, &body.to_string())
    }

    pub(super) fn truncated(status: u16, body: &str) -> Self {
        match Self::raw(status, body) {
            Self::Bytes(bytes) => Self::Half(bytes),
            other => other,
        }
    }

    pub(super) fn with(self, name: &str, value: &str) -> Self {
        let line = format!("\r\n{name}: {value}\r\nContent-Length");
        match self {
            Self::Bytes(bytes) => Self::Bytes(bytes.replacen("\r\nContent-Length", &line, 1)),
            other => other,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(header, _)| header == name);
        named.next().map(|(_, value)| value.as_str())
    }

    pub(super) fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(&self.body).into_owned().collect()
    }
}

#[derive(Debug, Default)]
struct State {
    replies: VecDeque<Reply>,
    requests: Vec<Request>,
    /// Connections that stay open without a response.
    silent: Vec<TcpStream>,
}

pub(super) struct Server {
    pub(super) base: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(super) fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let state = State { replies: replies.into(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(stream.unwrap(), &state));
            }
        });
        Self { base, state }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }
}

/// Runs until either side closes the connection.
fn serve(mut stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let reply = {
            let request = read(&mut reader);
            let mut state = state.lock().ok()?;
            // Anything but a request is TLS; a silent server does not answer it either.
            if let Some(request) = request {
                state.requests.push(request);
            } else if !matches!(state.replies.front(), Some(Reply::Silence)) {
                return None;
            }
            let reply = state.replies.pop_front().unwrap_or(Reply::Close);
            if matches!(reply, Reply::Silence) {
                state.silent.push(stream.try_clone().ok()?);
            }
            reply
        };
        match reply {
            Reply::Bytes(bytes) => stream.write_all(bytes.as_bytes()).ok()?,
            Reply::Half(bytes) => {
                let half = bytes.len() - 4;
                return stream.write_all(&bytes.as_bytes()[..half]).ok();
            }
            Reply::Close | Reply::Silence => return None,
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}

/// A port on which nothing listens.
pub(super) fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
