//! The settings of functions that charge.

use std::time::Duration;

use account::Credits;
use account::add_on::Collection;
use billing::Dunning;
use edge::Env;
use store::Tables;
use url::Url;

const ATTEMPT_DAYS: &str = "ADD_ON_ATTEMPT_DAYS";

/// See the contract's section 7.
#[derive(Debug, Clone)]
pub struct Settings {
    pub tables: Tables,
    /// `STRIPE_API_BASE_URL`, without a version.
    pub api_url: Url,
    /// `STRIPE_API_SECRET`: the name of the secret that holds Stripe's API key.
    pub api_secret: String,
    /// `STRIPE_LIVEMODE`: payments of the other mode do not count.
    pub livemode: bool,
    pub connect: Duration,
    pub dunning: Dunning,
    /// `ADD_ON_COLLECTION`: how the add-on is collected from accounts that buy it from now on.
    pub collection: Collection,
    /// The price of a period in credits, by `CREDITS_PER_USD`.
    pub price: Credits,
    /// `MIN_CREDIT_BALANCE`: a balance below this publishes `credits.low`.
    pub minimum_balance: Credits,
    /// `PUBLIC_BASE_URL`: the only source of return URLs.
    pub public_url: Url,
}

impl Settings {
    pub fn from_env(env: &mut Env) -> Self {
        Self {
            tables: Tables::from_settings(|name| env.text(name)),
            api_url: env.url_or("STRIPE_API_BASE_URL", "https://api.stripe.com"),
            api_secret: env.text("STRIPE_API_SECRET"),
            livemode: env.parse_or("STRIPE_LIVEMODE", false, |text| {
                text.parse().map_err(|_| "must be true or false".to_owned())
            }),
            connect: env.millis_or("UPSTREAM_CONNECT_MS", 3_000),
            dunning: dunning(env),
            collection: edge::collection(env),
            price: edge::price_in_credits(env),
            minimum_balance: edge::minimum_balance(env),
            public_url: env.url("PUBLIC_BASE_URL"),
        }
    }
}

fn dunning(env: &mut Env) -> Dunning {
    let days = env.list(ATTEMPT_DAYS, "0,1,3,5,7");
    let days: Option<Vec<u32>> = days.iter().map(|day| day.parse().ok()).collect();
    let grace = env.number_or("ADD_ON_GRACE_DAYS", 8, 1..=28);
    let dunning =
        days.zip(u32::try_from(grace).ok()).and_then(|(days, grace)| Dunning::new(days, grace));
    dunning.unwrap_or_else(|| {
        env.problem(
            ATTEMPT_DAYS,
            "must be rising days that begin with 0 and end before ADD_ON_GRACE_DAYS",
        );
        Dunning::default()
    })
}
