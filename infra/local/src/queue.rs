//! The queue of due accounts: SQS's wire protocol on loopback, and what hands its messages to the worker
//! as Lambda does in a deployment.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_config::SdkConfig;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, QueueAttributeName};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use edge::Clock;
use http::{HeaderMap, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use monthly_charge::{Batch, ChargeReport};
use serde::Deserialize;
use serde_json::{Value, json};
use winterbaume_core::{MockRequest, MockService};
use winterbaume_sqs::SqsService;

use crate::engines::REGION;
use crate::serve::{self, Server};

const NAME: &str = "charges";
/// So often a message is tried; a deployment's queue then moves it to the dead letters
/// (infra/template.yaml).
const MOST_TRIES: u32 = 3;
/// The most messages that are received at once.
const A_BATCH: i32 = 10;

/// The queue, until stopped or dropped. Its messages go with it.
pub struct Queue {
    server: Server,
    engine: Arc<Engine>,
    /// Takes messages from it.
    pub consumer: Consumer,
}

#[derive(Default)]
struct Engine {
    service: SqsService,
    /// So many messages are not accepted.
    refuses: AtomicUsize,
}

impl Queue {
    /// Starts it, empty. `clock` says what the functions think when a message was sent.
    ///
    /// # Errors
    /// If no port can be opened, or the engine makes no queue.
    pub async fn start(config: &SdkConfig, clock: Clock) -> io::Result<Self> {
        let engine = Arc::<Engine>::default();
        let router = Router::new()
            .route("/", post(answer))
            .with_state(Arc::clone(&engine));
        let server = Server::start(router).await?;
        let client = client(config, &server.url(), None);
        let made = client
            .create_queue()
            .queue_name(NAME)
            // A message that was taken and neither deleted nor put back is not seen again.
            .attributes(QueueAttributeName::VisibilityTimeout, "43200")
            .send()
            .await;
        made.map_err(io::Error::other)?;
        let url = format!("{}/000000000000/{NAME}", server.url());
        let consumer = Consumer { client, url, clock };
        Ok(Self {
            server,
            engine,
            consumer,
        })
    }

    /// Where SQS answers: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        self.server.url()
    }

    /// The queue's own URL.
    pub fn url(&self) -> &str {
        &self.consumer.url
    }

    /// A client of it whose requests `http` carries.
    pub fn client_over(
        &self,
        config: &SdkConfig,
        http: Option<SharedHttpClient>,
    ) -> aws_sdk_sqs::Client {
        client(config, &self.endpoint(), http)
    }

    /// The next `messages` are not accepted. The others of the same request are.
    pub fn refuse(&self, messages: usize) {
        self.engine.refuses.store(messages, Ordering::Relaxed);
    }

    /// Stops, and returns once the port is closed.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

fn client(
    config: &SdkConfig,
    endpoint: &str,
    http: Option<SharedHttpClient>,
) -> aws_sdk_sqs::Client {
    let mut config = aws_sdk_sqs::config::Builder::from(config).endpoint_url(endpoint);
    if let Some(http) = http {
        config = config.http_client(http);
    }
    aws_sdk_sqs::Client::from_conf(config.build())
}

/// Takes messages from the queue. Cheap to clone.
#[derive(Clone)]
pub struct Consumer {
    client: aws_sdk_sqs::Client,
    url: String,
    clock: Clock,
}

/// A message that was taken from the queue: nobody else sees it.
#[derive(Debug, Clone)]
pub struct Taken {
    /// In the form in which Lambda is given it.
    pub record: Value,
    receipt: String,
    /// How often it was taken.
    times: u32,
}

impl Taken {
    pub fn message_id(&self) -> &str {
        self.record["messageId"].as_str().unwrap_or_default()
    }
}

/// What became of the messages that were in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    pub report: ChargeReport,
    /// Messages that failed again and again. What they name comes back by the index of what is due.
    pub given_up: u32,
}

/// The event in which Lambda gives the worker these messages.
pub fn event<'a>(taken: impl IntoIterator<Item = &'a Taken>) -> Value {
    let records: Vec<_> = taken.into_iter().map(|taken| &taken.record).collect();
    json!({ "Records": records })
}

impl Consumer {
    /// Takes up to 10 messages.
    ///
    /// # Panics
    /// If the queue does not answer.
    pub async fn take(&self) -> Vec<Taken> {
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(A_BATCH)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .send()
            .await
            .expect("the queue answers");
        let messages = answer.messages.unwrap_or_default();
        messages.iter().map(|it| self.taken(it)).collect()
    }

    fn taken(&self, message: &Message) -> Taken {
        let attribute = |name: MessageSystemAttributeName| {
            let attributes = message.attributes.as_ref();
            attributes.and_then(|all| all.get(&name)?.parse::<i64>().ok())
        };
        let times = attribute(MessageSystemAttributeName::ApproximateReceiveCount).unwrap_or(1);
        let sent = attribute(MessageSystemAttributeName::SentTimestamp).unwrap_or_default();
        let receipt = message.receipt_handle.clone().unwrap_or_default();
        let record = json!({
            "messageId": message.message_id,
            "receiptHandle": receipt,
            "body": message.body,
            "attributes": {
                "ApproximateReceiveCount": times.to_string(),
                "SentTimestamp": self.on_our_clock(sent).as_millisecond().to_string(),
            },
            "messageAttributes": {},
            "md5OfBody": message.md5_of_body,
            "eventSource": "aws:sqs",
            "eventSourceARN": format!("arn:aws:sqs:{REGION}:000000000000:{NAME}"),
            "awsRegion": REGION,
        });
        Taken {
            record,
            receipt,
            times: u32::try_from(times).unwrap_or(u32::MAX),
        }
    }

    /// The engine has the system's time, the functions that of a clock which may be shifted.
    fn on_our_clock(&self, millis: i64) -> Timestamp {
        let shift: SignedDuration = self
            .clock
            .now()
            .duration_since(Clock::system().now())
            .round(jiff::Unit::Millisecond)
            .unwrap_or_default();
        let at = Timestamp::from_millisecond(millis).unwrap_or_default();
        at.saturating_add(shift).unwrap_or(at)
    }

    /// The message is done with.
    ///
    /// # Panics
    /// If the queue does not answer.
    pub async fn delete(&self, taken: &Taken) {
        self.client
            .delete_message()
            .queue_url(&self.url)
            .receipt_handle(&taken.receipt)
            .send()
            .await
            .expect("the queue answers");
    }

    /// The message is seen again at once.
    ///
    /// # Panics
    /// If the queue does not answer.
    pub async fn put_back(&self, taken: &Taken) {
        self.client
            .change_message_visibility()
            .queue_url(&self.url)
            .receipt_handle(&taken.receipt)
            .visibility_timeout(0)
            .send()
            .await
            .expect("the queue answers");
    }

    /// Hands the messages to the worker, until there is none left that nobody else has taken.
    ///
    /// # Panics
    /// If the queue does not answer.
    pub async fn drain(&self, deps: &monthly_charge::Deps) -> Drained {
        let mut drained = Drained::default();
        loop {
            let taken = self.take().await;
            if taken.is_empty() {
                return drained;
            }
            let batch = Batch::deserialize(event(&taken)).expect("Lambda's form");
            let (answer, report) = Box::pin(monthly_charge::work(deps, batch)).await;
            drained.report += report;
            for message in &taken {
                let failed = answer.keeps(message.message_id());
                if failed && message.times < MOST_TRIES {
                    self.put_back(message).await;
                } else {
                    drained.given_up += u32::from(failed);
                    self.delete(message).await;
                }
            }
        }
    }
}

async fn answer(
    State(engine): State<Arc<Engine>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let target = headers.get("x-amz-target");
    let is_batch = target.is_some_and(|target| target == "AmazonSQS.SendMessageBatch");
    let (body, refused) = if is_batch {
        engine.refuse_of(body)
    } else {
        (body, Vec::new())
    };
    let request = MockRequest {
        method: "POST".to_owned(),
        uri: format!("https://sqs.{REGION}.amazonaws.com/"),
        headers,
        body,
    };
    let answer = engine.service.handle(request).await;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !refused.is_empty() {
        let mut body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        body["Failed"] = refused.into();
        return serve::json(status, &body);
    }
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = status;
    *response.headers_mut() = answer.headers;
    response
}

impl Engine {
    /// The request without the messages that are not accepted, and what is answered about those.
    fn refuse_of(&self, body: Bytes) -> (Bytes, Vec<Value>) {
        let mut request: Value = serde_json::from_slice(&body).unwrap_or_default();
        let Some(entries) = request["Entries"].as_array_mut() else {
            return (body, Vec::new());
        };
        let mut refused = Vec::new();
        entries.retain(|entry| {
            let counted = self
                .refuses
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                });
            if counted.is_ok() {
                let code = "InternalError";
                refused.push(json!({"Id": entry["Id"], "SenderFault": false, "Code": code}));
            }
            counted.is_err()
        });
        (request.to_string().into(), refused)
    }
}
