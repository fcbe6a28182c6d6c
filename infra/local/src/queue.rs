//! The queue of due accounts: SQS's wire protocol on loopback, and a consumer that hands the
//! messages to the worker as Lambda does in a deployment.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, QueueAttributeName};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use edge::Clock;
use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use monthly_charge::{Batch, ChargeReport};
use serde::Deserialize;
use serde_json::{Value, json};
use winterbaume_sqs::SqsService;

use crate::engines::{REGION, aws_config, handle, into_response};
use crate::serve::Server;

const NAME: &str = "charges";
/// The number of receives after which a message becomes a dead letter, as in infra/template.yaml.
const MAX_RECEIVES: u32 = 3;
/// The maximum number of messages received at once.
const BATCH_SIZE: i32 = 10;

/// A queue that runs until stopped or dropped. Its messages are lost then.
pub struct Queue {
    pub(crate) server: Server,
    engine: Arc<Engine>,
    pub consumer: Consumer,
}

#[derive(Default)]
struct Engine {
    service: SqsService,
    /// The number of upcoming messages to reject.
    rejects: AtomicUsize,
}

impl Queue {
    /// Starts an empty queue. Messages carry the time of `clock`.
    pub async fn start(clock: Clock) -> io::Result<Self> {
        let engine = Arc::<Engine>::default();
        let router = Router::new().route("/", post(respond)).with_state(Arc::clone(&engine));
        let server = Server::start(router).await?;
        let endpoint = BTreeMap::from([("AWS_ENDPOINT_URL_SQS".to_owned(), server.url())]);
        let client = aws_sdk_sqs::Client::new(&aws_config(&endpoint));
        client
            .create_queue()
            .queue_name(NAME)
            // A received message stays invisible until it is deleted or returned.
            .attributes(QueueAttributeName::VisibilityTimeout, "43200")
            .send()
            .await
            .map_err(io::Error::other)?;
        let url = format!("{}/000000000000/{NAME}", server.url());
        let consumer = Consumer { client, url, clock };
        Ok(Self { server, engine, consumer })
    }

    pub fn endpoint(&self) -> String {
        self.server.url()
    }

    pub fn url(&self) -> &str {
        &self.consumer.url
    }

    /// Rejects the next `messages` messages. Others in the same request are accepted.
    pub fn reject(&self, messages: usize) {
        self.engine.rejects.store(messages, Ordering::Relaxed);
    }
}

/// Receives messages from the queue. Cheap to clone.
#[derive(Clone)]
pub struct Consumer {
    client: aws_sdk_sqs::Client,
    url: String,
    clock: Clock,
}

/// A message that was received and is invisible to other consumers.
#[derive(Debug, Clone)]
pub struct ReceivedMessage {
    /// In the form that Lambda receives.
    pub record: Value,
    receipt: String,
    receives: u32,
}

impl ReceivedMessage {
    pub fn message_id(&self) -> &str {
        self.record["messageId"].as_str().unwrap_or_default()
    }
}

/// The outcome of emptying the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    pub report: ChargeReport,
    /// Messages that failed too often. A later tick queues their accounts again.
    pub dead_letters: u32,
}

/// The event in which Lambda hands these messages to the worker.
pub fn event<'a>(messages: impl IntoIterator<Item = &'a ReceivedMessage>) -> Value {
    let records: Vec<_> = messages.into_iter().map(|message| &message.record).collect();
    json!({ "Records": records })
}

impl Consumer {
    pub async fn receive(&self) -> Vec<ReceivedMessage> {
        let response = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(BATCH_SIZE)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .send()
            .await
            .expect("the queue responds");
        let messages = response.messages.unwrap_or_default();
        messages.iter().map(|message| self.received(message)).collect()
    }

    fn received(&self, message: &Message) -> ReceivedMessage {
        let attribute = |name: MessageSystemAttributeName| {
            let attributes = message.attributes.as_ref();
            attributes.and_then(|all| all.get(&name)?.parse::<i64>().ok())
        };
        let receives = attribute(MessageSystemAttributeName::ApproximateReceiveCount).unwrap_or(1);
        let sent = attribute(MessageSystemAttributeName::SentTimestamp).unwrap_or_default();
        let receipt = message.receipt_handle.clone().unwrap_or_default();
        let record = json!({
            "messageId": message.message_id,
            "receiptHandle": receipt,
            "body": message.body,
            "attributes": {
                "ApproximateReceiveCount": receives.to_string(),
                "SentTimestamp": self.on_our_clock(sent).as_millisecond().to_string(),
            },
            "messageAttributes": {},
            "md5OfBody": message.md5_of_body,
            "eventSource": "aws:sqs",
            "eventSourceARN": format!("arn:aws:sqs:{REGION}:000000000000:{NAME}"),
            "awsRegion": REGION,
        });
        ReceivedMessage { record, receipt, receives: u32::try_from(receives).unwrap_or(u32::MAX) }
    }

    /// The engine uses the system's time; the functions use a clock that may be shifted.
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

    pub async fn delete(&self, message: &ReceivedMessage) {
        let delete = self.client.delete_message().queue_url(&self.url);
        let deleted = delete.receipt_handle(&message.receipt).send().await;
        deleted.expect("the queue responds");
    }

    /// Makes a message visible again at once.
    pub async fn put_back(&self, message: &ReceivedMessage) {
        let change = self.client.change_message_visibility();
        let change = change.queue_url(&self.url).receipt_handle(&message.receipt);
        let changed = change.visibility_timeout(0).send().await;
        changed.expect("the queue responds");
    }

    /// Hands messages to the worker until none is visible.
    pub async fn drain(&self, deps: &monthly_charge::Deps) -> Drained {
        let mut drained = Drained::default();
        loop {
            let messages = self.receive().await;
            if messages.is_empty() {
                return drained;
            }
            let batch = Batch::deserialize(event(&messages)).expect("Lambda's form");
            let (response, report) = Box::pin(monthly_charge::work(deps, batch)).await;
            drained.report += report;
            for message in &messages {
                let failed = response.keeps(message.message_id());
                if failed && message.receives < MAX_RECEIVES {
                    self.put_back(message).await;
                } else {
                    drained.dead_letters += u32::from(failed);
                    self.delete(message).await;
                }
            }
        }
    }
}

async fn respond(State(engine): State<Arc<Engine>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target");
    let is_batch = target.is_some_and(|target| target == "AmazonSQS.SendMessageBatch");
    let (body, rejected) = if is_batch { engine.reject_some(body) } else { (body, Vec::new()) };
    let response = handle(&engine.service, headers, body).await;
    if rejected.is_empty() {
        return into_response(response);
    }
    let status = StatusCode::from_u16(response.status).expect("a valid status");
    let mut body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    body["Failed"] = rejected.into();
    (status, Json(body)).into_response()
}

impl Engine {
    /// The request without the rejected messages, and the results for the rejected ones.
    fn reject_some(&self, body: Bytes) -> (Bytes, Vec<Value>) {
        let mut request: Value = serde_json::from_slice(&body).unwrap_or_default();
        let Some(entries) = request["Entries"].as_array_mut() else {
            return (body, Vec::new());
        };
        let mut rejected = Vec::new();
        entries.retain(|entry| {
            let (order, one_less) = (Ordering::Relaxed, |left: usize| left.checked_sub(1));
            let rejects = self.rejects.fetch_update(order, order, one_less).is_ok();
            if rejects {
                let code = "InternalError";
                rejected.push(json!({"Id": entry["Id"], "SenderFault": false, "Code": code}));
            }
            !rejects
        });
        (request.to_string().into(), rejected)
    }
}
