//! Settings and errors that several functions share.

use std::error::Error;
use std::time::Duration;

use account::add_on::Collection;
use account::billing::PRICE_CENTS;
use account::{Credits, CreditsPerUsd, Usd};
use http::HeaderValue;

use crate::error::{ApiError, Code, log_error};
use crate::settings::Env;

/// `MIN_CREDIT_BALANCE`, in credits (1).
pub fn minimum_balance(env: &mut Env) -> Credits {
    let one = Credits::from_micros(1_000_000);
    env.parse_or("MIN_CREDIT_BALANCE", one, |text| {
        let credits = text.parse().ok().filter(|credits| *credits >= Credits::ZERO);
        credits.ok_or_else(|| "must be a decimal number of credits, for example 1.5".to_owned())
    })
}

/// `ADD_ON_COLLECTION` (`card`): who collects from accounts that buy from now on.
pub fn collection(env: &mut Env) -> Collection {
    env.parse_or("ADD_ON_COLLECTION", Collection::Card, |text| match text {
        "card" => Ok(Collection::Card),
        "credits" => Ok(Collection::Credits),
        "provider" => Ok(Collection::Provider),
        _ => Err("must be card, credits or provider".to_owned()),
    })
}

/// The add-on's price for one period in credits, by `CREDITS_PER_USD`.
pub fn price_in_credits(env: &mut Env) -> Credits {
    let price = Usd::from_cents(PRICE_CENTS);
    // Below 2^63 micro-credits at every allowed rate.
    price.in_credits(credits_per_usd(env)).unwrap_or_default()
}

pub fn credits_per_usd(env: &mut Env) -> CreditsPerUsd {
    let credits = env.number_or("CREDITS_PER_USD", 10, 1..=1_000_000);
    let credits = u32::try_from(credits).ok().and_then(CreditsPerUsd::new);
    credits.unwrap_or(CreditsPerUsd::MIN)
}

/// `PUBLIC_BASE_URL`, our name upstream.
pub fn referer(env: &mut Env) -> HeaderValue {
    // A URL is ASCII, so it is a valid header value.
    HeaderValue::from_str(env.url("PUBLIC_BASE_URL").as_str())
        .unwrap_or(HeaderValue::from_static("https://greta.example/"))
}

impl ApiError {
    /// 503 for a store that did not respond or an unreadable item, logged here with its causes.
    pub fn storage(error: &(dyn Error + 'static)) -> Self {
        log_error(error, "the storage failed");
        Self::new(
            Code::StorageUnavailable,
            "the request could not be carried out at the moment; try again",
        )
        .with_retry_after(Duration::from_secs(1))
    }

    /// 404 for an account that is unknown here, although its token is valid.
    pub fn account_not_found() -> Self {
        Self::new(
            Code::AccountNotFound,
            "Greta does not know this account yet; try again in a minute",
        )
    }
}
