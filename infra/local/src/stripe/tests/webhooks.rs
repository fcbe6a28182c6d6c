//! The delivery of events.

use super::*;

/// A webhook endpoint. The first `refusals` requests get a 500.
struct Receiver {
    server: Server,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    refusals: usize,
    ids: Vec<String>,
}

impl Receiver {
    async fn start(refusals: usize) -> Self {
        let seen = Arc::new(Mutex::new(Seen { refusals, ids: Vec::new() }));
        let router = Router::new().route("/hook", post(receive));
        let server = Server::start(router.with_state(Arc::clone(&seen))).await.unwrap();
        Self { server, seen }
    }

    fn ids(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap().ids)
    }
}

async fn receive(
    State(seen): State<Arc<Mutex<Seen>>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let event: Value = serde_json::from_slice(&body).unwrap();
    // Verified independently of the sender's code.
    let header = headers["stripe-signature"].to_str().unwrap();
    let (time, tag) = header.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = [time.as_bytes(), b".", &body].concat();
    let tag: Vec<u8> = (0..tag.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&tag[at..at + 2], 16).unwrap())
        .collect();
    aws_lc_rs::hmac::verify(&key, &signed, &tag).unwrap();
    let mut seen = seen.lock().unwrap();
    seen.ids.push(event["id"].as_str().unwrap().to_owned());
    if seen.refusals > 0 {
        seen.refusals -= 1;
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    StatusCode::OK
}

#[tokio::test]
async fn events_are_delivered_as_configured() {
    let rig = Rig::start().await;
    let hook = Receiver::start(1).await;
    rig.paid_intent().await;
    let event = rig.stripe.webhooks.events().pop().unwrap();
    rig.stripe.webhooks.set_endpoint(&format!("{}/hook", hook.server.url()), SECRET);
    let body: Value = serde_json::from_str(&event.body).unwrap();
    for (name, value) in [
        ("object", json!("event")),
        ("type", json!("payment_intent.succeeded")),
        ("created", json!(start_of_2026().as_second())),
        ("livemode", json!(false)),
        ("api_version", json!(API_VERSION)),
    ] {
        assert_eq!(body[name], value, "{name}");
    }
    assert_eq!(body["data"]["object"]["object"], "payment_intent");

    // After a refusal the event is sent again.
    rig.paid_intent().await;
    rig.stripe.webhooks.until_delivered().await;
    let ids = hook.ids();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
    rig.stripe.webhooks.set_delivery(Delivery::Drop);
    rig.stripe.webhooks.forget_events();
    rig.paid_intent().await;
    assert_eq!(rig.kinds(), [""; 0]);
    rig.stripe.webhooks.set_delivery(Delivery::Hold);
    rig.paid_intent().await;
    let held = rig.stripe.webhooks.take_held();
    assert_eq!(held.len(), 1);
    for _ in 0..2 {
        assert_eq!(rig.stripe.webhooks.deliver(&held[0]).await.unwrap(), 200);
    }
    assert_eq!(hook.ids(), [held[0].id.clone(), held[0].id.clone()]);
}
