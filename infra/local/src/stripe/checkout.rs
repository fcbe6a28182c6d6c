//! Checkout Sessions: created through the API, paid on their page.

use jiff::{SignedDuration, Timestamp};

use super::card::{Card, ChargeOutcome, decline_message};
use super::error::ApiError;
use super::params::Params;
use super::payment_intents::chargeable;
use super::resources::{Mode, Session, SessionStatus, SetupIntent};
use super::state::{StripeState, existing};

const SHORTEST_SESSION: SignedDuration = SignedDuration::from_mins(30);
const LONGEST_SESSION: SignedDuration = SignedDuration::from_hours(24);

/// Why a page was not paid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayError {
    #[error("there is no such page")]
    NotFound,
    #[error("this was already paid")]
    Complete,
    #[error("this page has expired")]
    Expired,
    #[error("{0}")]
    Declined(&'static str),
    /// The payer's browser gets no response; it may have been paid all the same.
    #[error("the connection was closed")]
    NoResponse,
}

impl StripeState {
    pub(super) fn create_session(&mut self, params: &Params) -> Result<String, ApiError> {
        params.only(
            "adaptive_pricing allow_promotion_codes automatic_tax billing_address_collection \
             cancel_url client_reference_id currency customer customer_creation customer_email \
             customer_update expires_at line_items locale metadata mode payment_intent_data \
             payment_method_types saved_payment_method_options setup_intent_data submit_type \
             subscription_data success_url",
        )?;
        let (mode, data) = match params.required("mode")? {
            "payment" => (Mode::Payment, "payment_intent_data"),
            "subscription" => (Mode::Subscription, "subscription_data"),
            "setup" => (Mode::Setup, "setup_intent_data"),
            _ => return Err(ApiError::invalid("mode", "Invalid mode")),
        };
        let customer = self.customer_param(params)?;
        let (product, amount, currency) = if mode == Mode::Setup {
            let product = "A card for later payments".to_owned();
            (product, None, params.owned("currency"))
        } else {
            let (product, amount, currency) = line_items(params, mode)?;
            (product, Some(amount), Some(currency))
        };
        if currency.is_none() && params.list("payment_method_types").is_empty() {
            return Err(ApiError::missing("currency"));
        }
        let reuse = params.get("payment_intent_data[setup_future_usage]");
        let creation = params.get("customer_creation") == Some("always");
        let id = self.new_id(if self.livemode { "cs_live" } else { "cs_test" });
        let session = Session {
            id: id.clone(),
            created: self.now,
            mode,
            expires_at: expiry(params, self.now)?,
            amount,
            currency,
            customer,
            email: params.owned("customer_email"),
            success_url: params.required("success_url")?.to_owned(),
            cancel_url: params.owned("cancel_url"),
            client_reference_id: params.owned("client_reference_id"),
            metadata: params.map("metadata"),
            product,
            inner_metadata: params.map(&format!("{data}[metadata]")),
            keeps_method: mode != Mode::Payment || reuse == Some("off_session"),
            makes_customer: mode == Mode::Subscription || creation,
            ..Session::default()
        };
        self.open_sessions.insert((session.expires_at, id.clone()));
        self.sessions.insert(id.clone(), session);
        Ok(id)
    }

    pub(super) fn expire_session(&mut self, id: &str) -> Result<String, ApiError> {
        let id = self.known("checkout.session", id)?;
        if !self.sessions[&id].is_open() {
            let message = "Only Checkout Sessions with a status in [\"open\"] can be expired.";
            return Err(ApiError::state(None, message));
        }
        self.end_session(&id);
        Ok(id)
    }

    /// Expires the sessions whose time is up.
    pub fn expire_sessions(&mut self) {
        while let Some((at, id)) = self.open_sessions.first() {
            if *at > self.now {
                break;
            }
            let id = id.clone();
            self.end_session(&id);
        }
    }

    /// An open session expires, and the PaymentIntent that was begun in it is cancelled.
    fn end_session(&mut self, id: &str) {
        let session = existing(&mut self.sessions, id);
        let entry = (session.expires_at, id.to_owned());
        self.open_sessions.remove(&entry);
        session.status = SessionStatus::Expired;
        if let Some(intent) = session.payment_intent.clone() {
            self.end_intent(&intent);
        }
        self.emit("checkout.session.expired", id);
    }

    /// The customer pays on the checkout page. Returns the URL to which it sends the browser then.
    pub fn pay(&mut self, session: &str, card: Card) -> Result<String, PayError> {
        self.expire_sessions();
        let session = self.sessions.get(session).ok_or(PayError::NotFound)?;
        let session = session.clone();
        match session.status {
            SessionStatus::Open => {}
            SessionStatus::Complete => return Err(PayError::Complete),
            SessionStatus::Expired => return Err(PayError::Expired),
        }
        let outcome = match card.charge(false) {
            ChargeOutcome::NoResponse => return Err(PayError::NoResponse),
            // The customer is present and authenticates.
            ChargeOutcome::RequiresAction => ChargeOutcome::Succeeded,
            // Only one-time payments take a while.
            ChargeOutcome::Processing if session.mode != Mode::Payment => ChargeOutcome::Succeeded,
            outcome => outcome,
        };
        let result = if let ChargeOutcome::Declined(reason) = outcome {
            if session.mode != Mode::Setup {
                let intent = self.session_intent(&session);
                let method = self.add_method(None, card);
                self.attempt(&intent, &method, outcome);
            }
            Err(PayError::Declined(decline_message(reason)))
        } else {
            let return_url = session.return_url();
            self.complete_session(session, card, outcome);
            Ok(return_url)
        };
        if card.loses_response() {
            return Err(PayError::NoResponse);
        }
        result
    }

    /// The session's PaymentIntent: one for all attempts.
    fn session_intent(&mut self, session: &Session) -> String {
        if let Some(intent) = &session.payment_intent {
            return intent.clone();
        }
        let id = self.new_intent(
            session.amount.unwrap_or_default(),
            session.currency.clone().unwrap_or_default(),
            session.customer.clone(),
        );
        let intent = existing(&mut self.intents, &id);
        intent.session = Some(session.id.clone());
        intent.keeps_method = session.keeps_method;
        if session.mode == Mode::Payment {
            intent.metadata.clone_from(&session.inner_metadata);
        }
        let session = existing(&mut self.sessions, &session.id);
        session.payment_intent = Some(id.clone());
        id
    }

    fn complete_session(&mut self, mut session: Session, card: Card, outcome: ChargeOutcome) {
        if session.customer.is_none() && session.makes_customer {
            session.customer = Some(self.add_customer(session.email.clone()));
        }
        let owner = session.customer.clone().filter(|_| session.keeps_method);
        let method = self.add_method(owner, card);
        if session.mode == Mode::Setup {
            let id = self.new_id("seti");
            session.setup_intent = Some(id.clone());
            let setup = SetupIntent {
                id: id.clone(),
                created: self.now,
                customer: session.customer.clone(),
                payment_method: method,
                metadata: session.inner_metadata.clone(),
            };
            self.setup_intents.insert(id, setup);
        } else {
            let intent = self.session_intent(&session);
            let paying = existing(&mut self.intents, &intent);
            paying.customer.clone_from(&session.customer);
            session.payment_intent = Some(intent.clone());
            self.attempt(&intent, &method, outcome);
            session.paid = matches!(outcome, ChargeOutcome::Succeeded);
            if session.mode == Mode::Subscription {
                let (subscription, invoice) = self.subscribe(&session, &intent, method);
                session.subscription = Some(subscription);
                session.invoice = Some(invoice);
            }
        }
        session.status = SessionStatus::Complete;
        let id = session.id.clone();
        self.open_sessions.remove(&(session.expires_at, id.clone()));
        self.sessions.insert(id.clone(), session);
        self.emit("checkout.session.completed", &id);
    }
}

/// What a session sells: the product's name, the amount and the currency.
fn line_items(params: &Params, mode: Mode) -> Result<(String, i64, String), ApiError> {
    if let Some(price) = params.get("line_items[0][price]") {
        // The only prices are those that a session itself defines.
        return Err(ApiError::no_such_value("price", price));
    }
    let first = "line_items[0][price_data]";
    let currency = params.required(&format!("{first}[currency]"))?;
    let product = params.required(&format!("{first}[product_data][name]"))?;
    let mut amount = 0;
    for n in 0.. {
        let item = format!("line_items[{n}]");
        let price = format!("{item}[price_data][unit_amount]");
        if n > 0 && params.get(&price).is_none() {
            break;
        }
        params.required(&price)?;
        let interval = format!("{item}[price_data][recurring][interval]");
        match (mode, params.get(&interval)) {
            (Mode::Subscription, Some("month")) | (Mode::Payment, None) => {}
            (Mode::Subscription, None) => return Err(ApiError::missing(&interval)),
            _ => {
                let message = "Invalid interval for this mode";
                return Err(ApiError::invalid(&interval, message));
            }
        }
        let unit = params.integer(&price)?.unwrap_or_default();
        let name = format!("{item}[quantity]");
        let quantity = params.integer(&name)?;
        amount += unit * quantity.ok_or_else(|| ApiError::missing(&name))?;
    }
    Ok((product.to_owned(), chargeable(amount)?, currency.to_owned()))
}

fn expiry(params: &Params, now: Timestamp) -> Result<Timestamp, ApiError> {
    let Some(second) = params.integer("expires_at")? else {
        return Ok(now + LONGEST_SESSION);
    };
    let after = SignedDuration::from_secs(second.saturating_sub(now.as_second()));
    let at = Timestamp::from_second(second).ok();
    let at = at.filter(|_| (SHORTEST_SESSION..=LONGEST_SESSION).contains(&after));
    at.ok_or_else(|| {
        let message = "The `expires_at` timestamp must be from 30 minutes to 24 hours from \
                       Checkout Session creation.";
        ApiError::invalid("expires_at", message)
    })
}
