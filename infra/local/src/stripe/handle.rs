//! A handle of the simulated Stripe: its locked state, its clock, and what a test or a payer can do.

use std::io;
use std::sync::{Arc, Mutex};

use edge::Clock;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use super::admission::ApiRequest;
use super::card::{Card, PayError};
use super::state::{NotPossible, Payment, StripeState};
use super::time::StripeTime;
use super::webhooks::Webhooks;
use super::{checkout, customers, invoices, payment_intents, refunds, subscriptions};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct StripeHandle {
    shared: Arc<Shared>,
    pub webhooks: Webhooks,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<StripeState>,
    time: Arc<StripeTime>,
    /// Requests wait if their path ends like this.
    paused: watch::Sender<Option<&'static str>>,
    waiting: watch::Sender<usize>,
}

impl StripeHandle {
    pub(super) fn new(state: StripeState, clock: Clock) -> io::Result<Self> {
        let time = Arc::new(StripeTime::new(clock));
        let webhooks = Webhooks::new(Arc::clone(&time))?;
        let shared = Shared {
            state: Mutex::new(state),
            time,
            paused: watch::Sender::default(),
            waiting: watch::Sender::default(),
        };
        Ok(Self { shared: Arc::new(shared), webhooks })
    }

    /// Uses the state at the current time, and delivers the resulting events.
    pub fn act<T>(&self, use_state: impl FnOnce(&mut StripeState) -> T) -> T {
        let mut state = self.shared.state.lock().unwrap();
        state.now = self.shared.time.now();
        let result = use_state(&mut state);
        self.webhooks.dispatch(state.take_events());
        result
    }

    /// Stops Stripe's clock at `now`; sessions that are due by then expire.
    pub fn set_time(&self, now: Timestamp) {
        self.shared.time.stop_at(now);
        self.act(checkout::expire_due);
    }

    /// Renews subscriptions as of `at`; returns once their events are delivered.
    pub async fn renew_due_at(&self, at: Timestamp) {
        self.act(|state| {
            state.now = at;
            subscriptions::renew_due(state);
        });
        self.webhooks.until_delivered().await;
    }

    /// From now on, POST requests to paths that end like this, for example with `/confirm`, wait
    /// for [`resume`](Self::resume), even if their callers go away.
    pub fn pause_at(&self, path_end: &'static str) {
        self.shared.paused.send_replace(Some(path_end));
    }

    /// Carries out the requests that wait.
    pub fn resume(&self) {
        self.shared.paused.send_replace(None);
    }

    /// Returns once a request waits.
    pub async fn until_paused(&self) {
        let mut waiting = self.shared.waiting.subscribe();
        let _ = waiting.wait_for(|count| *count > 0).await;
    }

    pub(super) async fn until_resumed(&self, path: &str) {
        let may_pass = |paused: Option<&str>| paused.is_none_or(|end| !path.ends_with(end));
        let mut paused = self.shared.paused.subscribe();
        if may_pass(*paused.borrow_and_update()) {
            return;
        }
        self.shared.waiting.send_modify(|count| *count += 1);
        let _ = paused.wait_for(|paused| may_pass(*paused)).await;
        self.shared.waiting.send_modify(|count| *count -= 1);
    }
}

macro_rules! operations {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $returned:ty)? = $operation:path;)*) => {
        /// What payers, banks, the merchant and tests do, each at the current time.
        impl StripeHandle {$(
            pub fn $name(&self, $($argument: $type),*) $(-> $returned)? {
                self.act(|state| $operation(state, $($argument),*))
            }
        )*}
    };
}

operations! {
    add_method(customer: Option<String>, card: Card) -> String = StripeState::add_method;
    add_payer() -> (String, String) = StripeState::add_payer;
    bounce_refund(intent: &str) -> Result<(), NotPossible> = refunds::bounce;
    close_dispute(id: &str, won: bool) -> Result<(), NotPossible> = refunds::close_dispute;
    delete_customer(customer: &str) = customers::delete;
    detach(method: &str) = customers::detach;
    dispute(intent: &str) -> Result<String, NotPossible> = refunds::dispute;
    escalate(dispute: &str) -> Result<(), NotPossible> = refunds::escalate;
    draft_ended() = subscriptions::draft_ended;
    draft_renewal(subscription: &str) -> Result<(), NotPossible> = subscriptions::draft_renewal;
    fail_next(path_end: &'static str, status: u16, times: usize) = StripeState::fail_next;
    fail_refunds(next: u32) = refunds::fail_next;
    finalize_drafts() = subscriptions::finalize_drafts;
    finish(intent: &str, succeeded: bool) -> Result<(), NotPossible> = payment_intents::finish;
    forget(id: &str) = StripeState::forget;
    inquire(intent: &str) -> Result<String, NotPossible> = refunds::inquire;
    limit_rate(next: u32, per_second: Option<usize>) = StripeState::limit_rate;
    object(id: &str) -> Option<Value> = StripeState::object;
    pay(session: &str, card: Card) -> Result<String, PayError> = checkout::pay;
    pay_open_invoice(id: &str, card: Card) -> Result<(), PayError> = invoices::pay_on_page;
    payable() -> Vec<String> = checkout::payable;
    payments() -> Vec<Payment> = StripeState::payments;
    refund_in_dashboard(intent: &str, cents: i64) -> Result<(), NotPossible>
        = refunds::refund_in_dashboard;
    renew_due() = subscriptions::renew_due;
    renew_ended() = subscriptions::renew_ended;
    retry_due() = subscriptions::retry_due;
    schedule(subscription: &str, scheduled: bool) = subscriptions::schedule;
    script(customer: &str, attempts: &[Card]) = StripeState::script;
    seen() -> Vec<ApiRequest> = StripeState::seen;
    set_api_key(key: &str) = StripeState::set_api_key;
    set_card(customer: &str, card: Card) = StripeState::set_card;
}
