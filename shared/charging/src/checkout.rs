//! Checkout Sessions: created, shown again, closed.

use std::time::Duration;

use account::add_on::Collection;
use account::billing::{AddOnPurchase, Checkout, PRICE_CENTS, Session};
use account::{Account, AddOnStatus, Credits, EntryId, Profile};
use billing::CHECKOUT_LIFE;
use jiff::{SignedDuration, Timestamp};
use payments::{
    Cents, CustomerId, NewSession, PaymentError, Price, Purpose, SessionId, SessionStatus,
};
use store::{Effect, PaymentOrder, Purchase};
use url::Url;

use crate::apply::apply_session;
use crate::context::Charging;
use crate::error::{ChargingError, NotBought};

/// The product's name, from the product document.
const ADD_ON: &str = "Power your AI with OpenRouter \u{2013} $5 Add-on";
const CREDITS: &str = "Greta credits";
const SETTINGS_PATH: &str = "/settings/integrations";
/// A session that closes sooner is not shown again.
const MIN_TIME_LEFT: SignedDuration = SignedDuration::from_mins(2);
/// Waits while another call creates the same Stripe object, in milliseconds.
const PAUSES: [u64; 5] = [50, 100, 200, 400, 800];

/// A session to create that is not part of the account's profile.
struct NewOrder<'a> {
    /// The order's name, and the idempotency key of its creation.
    name: String,
    purpose: Purpose<'a>,
    purchase: Purchase,
    amount_cents: u64,
    success_query: String,
}

/// Opens a session with which the account's card can be replaced.
pub async fn replace_card(
    charging: &Charging,
    account: &Account,
    now: Timestamp,
) -> Result<Url, NotBought> {
    let add_on = &account.profile.add_on;
    let is_charged = matches!(
        add_on.status(),
        AddOnStatus::Active | AddOnStatus::PastDue | AddOnStatus::Cancelling
    );
    if !is_charged || add_on.collection() == Some(Collection::Credits) {
        return Err(NotBought::NoCardCharged);
    }
    let order = NewOrder {
        name: edge::new_id("ord"),
        purpose: Purpose::Setup,
        purchase: Purchase::Card,
        amount_cents: 0,
        success_query: "checkout=card".to_owned(),
    };
    Ok(open(charging, account, order, now).await?)
}

/// Opens a session with which `usd_cents` buy `credits`.
pub async fn buy_credits(
    charging: &Charging,
    account: &Account,
    usd_cents: u64,
    credits: Credits,
    now: Timestamp,
) -> Result<Url, ChargingError> {
    let name = edge::new_id("ord");
    let price = Price {
        product: CREDITS,
        amount: Cents::new(usd_cents),
    };
    let order = NewOrder {
        purpose: Purpose::Payment {
            price,
            keep_card: false,
        },
        purchase: Purchase::Credits {
            entry: EntryId::new(name.as_str())?,
            credits,
        },
        amount_cents: usd_cents,
        // The web page waits for this order: Stripe reports to us, not to the browser.
        success_query: format!("checkout=credits&order={name}"),
        name,
    };
    open(charging, account, order, now).await
}

/// Creates a session, and stores its order before anybody sees its URL.
async fn open(
    charging: &Charging,
    account: &Account,
    order: NewOrder<'_>,
    now: Timestamp,
) -> Result<Url, ChargingError> {
    let customer = customer(charging, account, now).await?;
    let new = NewSession {
        purpose: order.purpose,
        customer: Some(&customer),
        success_url: &return_url(charging, SETTINGS_PATH, &order.success_query),
        cancel_url: &return_url(charging, SETTINGS_PATH, "checkout=cancelled"),
        client_reference_id: &order.name,
        expires_at: now.saturating_add(CHECKOUT_LIFE).unwrap_or(now),
    };
    let session = charging.stripe.create_session(&new, &order.name).await?;
    let closes_at = session.expires_at.unwrap_or(new.expires_at);
    let order = PaymentOrder {
        stripe_id: session.id.to_string(),
        account_number: account.number.clone(),
        purchase: order.purchase,
        amount_cents: order.amount_cents,
        created_at: now,
    };
    let payments = &charging.store.payments;
    payments.create_session_order(&order, closes_at).await?;
    Ok(session.url.unwrap_or_default().parse()?)
}

/// The URL of the account's existing checkout. `None` if it was closed or paid.
pub(crate) async fn reopen(
    charging: &Charging,
    account: &Account,
    checkout: &Checkout,
    now: Timestamp,
) -> Result<Option<Url>, NotBought> {
    let until = now.saturating_add(MIN_TIME_LEFT).unwrap_or(now);
    let is_payable = billing::is_payable(&account.profile, checkout, until);
    let Some(session) = &checkout.session else {
        if is_payable {
            return create(charging, account, checkout, now).await;
        }
        let drop_checkout = |profile: &mut Profile| {
            let known = profile.billing.checkout.as_ref();
            // Another call may have created the session meanwhile.
            let is_same =
                |known: &Checkout| known.order == checkout.order && known.session.is_none();
            if known.is_some_and(is_same) {
                profile.billing.checkout = None;
            }
        };
        charging.change(&account.id, now, drop_checkout).await?;
        return Ok(None);
    };
    let (stripe, id) = (&charging.stripe, SessionId::new(session.id.as_str())?);
    let found = if is_payable {
        stripe.session(&id).await?
    } else {
        stripe.expire_session(&id).await?
    };
    if found.paid {
        apply_session(charging, &found, now).await?;
        return Ok(None);
    }
    match found.status {
        SessionStatus::Open => Ok(Some(session.url.parse()?)),
        SessionStatus::Expired => {
            let closed = |profile: &mut Profile| billing::checkout_closed(profile, &session.id);
            charging.change(&account.id, now, closed).await?;
            Ok(None)
        }
        SessionStatus::Complete | SessionStatus::Other => Err(NotBought::InProgress),
    }
}

/// Creates the session of a checkout that is stored. The request follows from what is stored, so that
/// creating it twice creates one.
async fn create(
    charging: &Charging,
    account: &Account,
    checkout: &Checkout,
    now: Timestamp,
) -> Result<Option<Url>, NotBought> {
    let stripe = &charging.stripe;
    let customer = customer(charging, account, now).await?;
    let price = Price {
        product: ADD_ON,
        amount: Cents::new(PRICE_CENTS),
    };
    let ends = checkout.created_at.saturating_add(CHECKOUT_LIFE);
    let new = NewSession {
        purpose: match checkout.collection {
            Collection::Provider => Purpose::Subscription { price },
            Collection::Card | Collection::Credits => Purpose::Payment {
                price,
                keep_card: true,
            },
        },
        customer: Some(&customer),
        success_url: &return_url(charging, SETTINGS_PATH, "checkout=done"),
        cancel_url: &return_url(charging, "/plans", "checkout=cancelled"),
        client_reference_id: &checkout.order,
        expires_at: ends.unwrap_or(checkout.created_at),
    };
    let created = once(|| stripe.create_session(&new, &checkout.order)).await?;
    let (Some(url), Some(expires_at)) = (&created.url, created.expires_at) else {
        return Err(NotBought::InProgress);
    };
    let session = Session {
        id: created.id.to_string(),
        url: url.clone(),
        expires_at,
    };
    let order = PaymentOrder {
        stripe_id: session.id.clone(),
        account_number: account.number.clone(),
        purchase: match &checkout.purchase {
            AddOnPurchase::Generation => Purchase::Generation {
                collection: checkout.collection,
            },
            AddOnPurchase::Period { generation, period } => Purchase::Period {
                generation: generation.clone(),
                period: *period,
            },
        },
        amount_cents: PRICE_CENTS,
        created_at: now,
    };
    let mut wanted = false;
    let store_session = |profile: &mut Profile| {
        let before = profile.billing.checkout.clone();
        wanted = billing::checkout_created(profile, &checkout.order, session.clone());
        let is_new = wanted && profile.billing.checkout != before;
        let order = is_new.then(|| Effect::PaymentOrder(order.clone()));
        order.into_iter().collect()
    };
    let stored = charging.change_with_effects(&account.id, now, store_session);
    match stored.await {
        Ok(_) if wanted => return Ok(Some(url.parse()?)),
        Ok(_) | Err(ChargingError::Gone) => {}
        Err(error) => return Err(error.into()),
    }
    // Nobody has seen it, so nobody paid it.
    stripe.expire_session(&created.id).await?;
    Ok(None)
}

/// The account's Stripe customer, created when it is first needed.
async fn customer(
    charging: &Charging,
    account: &Account,
    now: Timestamp,
) -> Result<CustomerId, ChargingError> {
    if let Some(customer) = &account.profile.billing.customer {
        return Ok(CustomerId::new(customer.as_str())?);
    }
    let (number, key) = (&account.number, format!("{}-customer", account.number));
    let customer = once(|| charging.stripe.create_customer(number, &key)).await?;
    let keep_customer = |profile: &mut Profile| {
        let known = &mut profile.billing.customer;
        known.get_or_insert_with(|| customer.to_string());
    };
    charging.change(&account.id, now, keep_customer).await?;
    Ok(customer)
}

/// The result of a call under an idempotency key that several calls may use at the same time: Stripe
/// carries out the first, and refuses the others until it has.
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

/// A page of ours to which Stripe sends the user back.
fn return_url(charging: &Charging, path: &str, query: &str) -> Url {
    let mut url = charging.settings.public_url.clone();
    url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
    url.set_query(Some(query));
    url
}
