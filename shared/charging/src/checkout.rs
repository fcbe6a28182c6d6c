//! Creates, reopens and closes Checkout Sessions.

use std::time::Duration;

use account::add_on::Collection;
use account::billing::{AddOnPurchase, Checkout, IntentState, PRICE_CENTS, Session};
use account::{Account, AddOnStatus, Credits, EntryId, Profile};
use billing::CHECKOUT_LIFE;
use jiff::SignedDuration;
use payments::{
    Cents, CustomerId, IntentId, IntentStatus, NewSession, PaymentError, PaymentIntent, Price,
    Purpose, SessionId, SessionStatus,
};
use store::{Effect, PaymentOrder, Purchase};
use url::Url;

use crate::apply::apply_session;
use crate::context::Context;
use crate::error::{ChargingError, NotBought, Result};

const ADD_ON: &str = "Power your AI with OpenRouter \u{2013} $5 Add-on";
const CREDITS: &str = "Greta credits";
const SETTINGS_PATH: &str = "/settings/integrations";
/// Minimum time left for a session to be shown again.
const MIN_TIME_LEFT: SignedDuration = SignedDuration::from_mins(2);
/// Waits while another call creates the same Stripe object, in milliseconds.
const PAUSES: [u64; 5] = [50, 100, 200, 400, 800];

/// Opens a session for replacing the account's card.
pub async fn replace_card(cx: Context<'_>, account: &Account) -> Result<Url, NotBought> {
    let add_on = &account.profile.add_on;
    let is_charged = matches!(
        add_on.status(),
        AddOnStatus::Active | AddOnStatus::PastDue | AddOnStatus::Cancelling
    );
    if !is_charged || add_on.collection() == Some(Collection::Credits) {
        return Err(NotBought::NoCardCharged);
    }
    open_session(cx, account, OtherSession::Card).await
}

/// Opens a session for buying `credits` at `usd_cents`.
pub async fn buy_credits(
    cx: Context<'_>,
    account: &Account,
    usd_cents: u64,
    credits: Credits,
) -> Result<Url, NotBought> {
    open_session(cx, account, OtherSession::Credits { usd_cents, credits }).await
}

/// A Checkout Session that does not pay for the add-on.
#[derive(Clone, Copy)]
enum OtherSession {
    Card,
    Credits { usd_cents: u64, credits: Credits },
}

/// Opens a session. If Stripe responds with a failure, tries once more with a new one.
async fn open_session(
    cx: Context<'_>,
    account: &Account,
    kind: OtherSession,
) -> Result<Url, NotBought> {
    match create_session(cx, account, kind).await {
        Err(NotBought::NotCreated(error)) if error.is_failure_response() => {
            edge::log_error(&error, "could not create a Checkout Session; creating another");
            create_session(cx, &cx.account(&account.id).await?, kind).await
        }
        opened => opened,
    }
}

/// Stores the order before returning the URL. The order's name is also the idempotency key.
async fn create_session(
    cx: Context<'_>,
    account: &Account,
    kind: OtherSession,
) -> Result<Url, NotBought> {
    let name = edge::new_id("ord");
    let (purpose, purchase, amount_cents, query) = match kind {
        OtherSession::Card => (Purpose::Setup, Purchase::Card, 0, "checkout=card".to_owned()),
        OtherSession::Credits { usd_cents, credits } => {
            let price = Price { product: CREDITS, amount: Cents::new(usd_cents) };
            let entry = EntryId::new(name.as_str())?;
            (
                Purpose::Payment { price, keep_card: false },
                Purchase::Credits { entry, credits },
                usd_cents,
                // The web page waits for this order: Stripe reports to us, not to the browser.
                format!("checkout=credits&order={name}"),
            )
        }
    };
    let new = NewSession {
        purpose,
        customer: Some(&customer(cx, account).await?),
        success_url: &return_url(cx, SETTINGS_PATH, &query),
        cancel_url: &return_url(cx, SETTINGS_PATH, "checkout=cancelled"),
        client_reference_id: &name,
        expires_at: cx.later(CHECKOUT_LIFE),
    };
    let session = match cx.stripe.create_session(&new, &name).await {
        Ok(session) => session,
        Err(error) => return Err(not_created(cx, account, error).await),
    };
    let closes_at = session.expires_at.unwrap_or(new.expires_at);
    let order = PaymentOrder {
        stripe_id: session.id.to_string(),
        account_number: account.number.clone(),
        purchase,
        amount_cents,
        created_at: cx.now,
    };
    let payments = &cx.store.payments;
    payments.create_session_order(&order, closes_at).await?;
    Ok(session.url.unwrap_or_default().parse()?)
}

/// The URL of the account's existing checkout. `None` if the checkout was closed or paid.
pub(crate) async fn reopen(
    cx: Context<'_>,
    account: &Account,
    checkout: &Checkout,
) -> Result<Option<Url>, NotBought> {
    let until = cx.later(MIN_TIME_LEFT);
    let is_payable = billing::is_payable(&account.profile, checkout, until);
    let Some(session) = &checkout.session else {
        if is_payable {
            return create_checkout(cx, account, checkout).await;
        }
        drop_uncreated(cx, account, checkout).await?;
        return Ok(None);
    };
    let (stripe, id) = (&cx.stripe, SessionId::new(session.id.as_str())?);
    let closed = |profile: &mut Profile| billing::checkout_closed(profile, &session.id);
    let found =
        if is_payable { stripe.session(&id).await } else { stripe.expire_session(&id).await };
    let found = match found {
        Err(PaymentError::Missing { .. }) => {
            cx.change(&account.id, closed).await?;
            return Ok(None);
        }
        found => found?,
    };
    if found.paid {
        apply_session(cx, &found).await?;
        return Ok(None);
    }
    match found.status {
        SessionStatus::Open => Ok(Some(session.url.parse()?)),
        SessionStatus::Expired => {
            cx.change(&account.id, closed).await?;
            Ok(None)
        }
        SessionStatus::Complete | SessionStatus::Other => Err(NotBought::InProgress),
    }
}

/// The request depends only on the stored checkout, so repeating it creates no second session.
async fn create_checkout(
    cx: Context<'_>,
    account: &Account,
    checkout: &Checkout,
) -> Result<Option<Url>, NotBought> {
    let stripe = &cx.stripe;
    let customer = customer(cx, account).await?;
    let price = Price { product: ADD_ON, amount: Cents::new(PRICE_CENTS) };
    let ends = checkout.created_at.saturating_add(CHECKOUT_LIFE);
    let new = NewSession {
        purpose: match checkout.collection {
            Collection::Provider => Purpose::Subscription { price },
            Collection::Card | Collection::Credits => Purpose::Payment { price, keep_card: true },
        },
        customer: Some(&customer),
        success_url: &return_url(cx, SETTINGS_PATH, "checkout=done"),
        cancel_url: &return_url(cx, "/plans", "checkout=cancelled"),
        client_reference_id: &checkout.order,
        expires_at: ends.unwrap_or(checkout.created_at),
    };
    let created = match once(|| stripe.create_session(&new, &checkout.order)).await {
        Ok(created) => created,
        Err(error) if error.is_in_progress() => return Err(NotBought::InProgress),
        Err(error) => {
            // The same order has the same idempotency key, under which Stripe replays the failure.
            drop_uncreated(cx, account, checkout).await?;
            return Err(not_created(cx, account, error).await);
        }
    };
    let (Some(url), Some(expires_at)) = (&created.url, created.expires_at) else {
        return Err(NotBought::InProgress);
    };
    let session = Session { id: created.id.to_string(), url: url.clone(), expires_at };
    let order = PaymentOrder {
        stripe_id: session.id.clone(),
        account_number: account.number.clone(),
        purchase: match &checkout.purchase {
            AddOnPurchase::Generation => Purchase::Generation { collection: checkout.collection },
            AddOnPurchase::Period { generation, period } => {
                Purchase::Period { generation: generation.clone(), period: *period }
            }
        },
        amount_cents: PRICE_CENTS,
        created_at: cx.now,
    };
    let mut wanted = false;
    let store_session = |profile: &mut Profile| {
        let before = profile.billing.checkout.clone();
        wanted = billing::checkout_created(profile, &checkout.order, session.clone());
        let is_new = wanted && profile.billing.checkout != before;
        let order = is_new.then(|| Effect::PaymentOrder(order.clone()));
        order.into_iter().collect()
    };
    let stored = cx.change_with_effects(&account.id, store_session);
    match stored.await {
        Ok(_) if wanted => return Ok(Some(url.parse()?)),
        Ok(_) | Err(ChargingError::Gone) => {}
        Err(error) => return Err(error.into()),
    }
    // The session was never shown, so it is unpaid.
    stripe.expire_session(&created.id).await?;
    Ok(None)
}

/// Drops a checkout whose session was not created.
async fn drop_uncreated(cx: Context<'_>, account: &Account, checkout: &Checkout) -> Result<()> {
    let drop_checkout = |profile: &mut Profile| {
        let known = profile.billing.checkout.as_ref();
        // Another call may have created the session in the meantime.
        let is_same = |known: &Checkout| known.order == checkout.order && known.session.is_none();
        if known.is_some_and(is_same) {
            profile.billing.checkout = None;
        }
    };
    cx.change(&account.id, drop_checkout).await.map(drop)
}

/// The error of a session that Stripe did not create. Replaces a missing customer for the next try.
async fn not_created(cx: Context<'_>, account: &Account, error: PaymentError) -> NotBought {
    if let (true, Some(gone)) = (error.is_missing("customer"), &account.profile.billing.customer)
        && let Err(error) = replace_customer(cx, account, gone).await
    {
        return error.into();
    }
    NotBought::NotCreated(error)
}

/// Replaces a customer that was deleted at Stripe.
async fn replace_customer(cx: Context<'_>, account: &Account, gone: &str) -> Result<()> {
    tracing::warn!(customer = gone, "replacing a customer that no longer exists at Stripe");
    // The new customer's card could not pay the old one's PaymentIntent.
    let charge = account.profile.billing.charge.as_ref();
    let idle = match charge.map(|charge| &charge.intent) {
        Some(IntentState::Idle { id }) => Some(id),
        _ => None,
    };
    let is_cancelled = match idle {
        Some(id) => is_cancelled(cx.stripe.cancel_intent(&IntentId::new(id.as_str())?).await)?,
        None => false,
    };
    let key = format!("{}-customer-after-{gone}", account.number);
    let customer = create_customer(cx, account, &key).await?;
    let replace = |profile: &mut Profile| {
        let is_ours = billing::replace_customer(profile, gone, customer.as_str());
        if let (true, true, Some(id)) = (is_ours, is_cancelled, idle) {
            billing::intent_cancelled(profile, id);
        }
    };
    cx.change(&account.id, replace).await.map(drop)
}

fn is_cancelled(cancelled: Result<PaymentIntent, PaymentError>) -> Result<bool> {
    match cancelled {
        Err(PaymentError::Missing { .. }) => Ok(true),
        cancelled => Ok(cancelled?.status == IntentStatus::Canceled),
    }
}

/// The account's Stripe customer, created on first use.
async fn customer(cx: Context<'_>, account: &Account) -> Result<CustomerId> {
    if let Some(customer) = &account.profile.billing.customer {
        return Ok(CustomerId::new(customer.as_str())?);
    }
    let key = format!("{}-customer", account.number);
    let customer = create_customer(cx, account, &key).await?;
    let keep_customer = |profile: &mut Profile| {
        let known = &mut profile.billing.customer;
        known.get_or_insert_with(|| customer.to_string());
    };
    cx.change(&account.id, keep_customer).await?;
    Ok(customer)
}

/// Creates a customer. A duplicate does no harm: only the stored one pays.
async fn create_customer(cx: Context<'_>, account: &Account, key: &str) -> Result<CustomerId> {
    let create = async |key: &str| cx.stripe.create_customer(&account.number, key).await;
    match once(|| create(key)).await {
        Err(error) if error.is_idempotency_key_spent() => {
            edge::log_error(&error, "could not create a customer; trying another key");
            Ok(create(&edge::new_id(key)).await?)
        }
        created => Ok(created?),
    }
}

/// Waits while another call is in progress under the same idempotency key.
async fn once<T, F>(call: impl Fn() -> F) -> Result<T, PaymentError>
where
    F: Future<Output = Result<T, PaymentError>>,
{
    for pause in PAUSES {
        match call().await {
            Err(error) if error.is_in_progress() => {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            result => return result,
        }
    }
    call().await
}

/// The URL of our page that Stripe sends the user back to.
fn return_url(cx: Context<'_>, path: &str, query: &str) -> Url {
    let mut url = cx.settings.public_url.clone();
    url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
    url.set_query(Some(query));
    url
}
