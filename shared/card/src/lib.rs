//! The integration card (contract, section 3): the integration as an account's members see it.
//!
//! Key save and integration settings both return it, so it is built here, once, from the account
//! and `routing`'s answers.

use account::{Account, AddOnStatus, Credits, KeyState, Plan, SavedKey};
use jiff::Timestamp;
use routing::{Decision, Payer, Policy, Reason, Situation};
use serde::{Serialize, Serializer};

/// The monthly price, as shown to users.
const PRICE_USD: &str = "5.00";

/// Everything about the integration that is shown. Every member is always there; absent facts are
/// `null`.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize)]
pub struct Card {
    pub status: Status,
    pub plan: Plan,
    pub can_edit: bool,
    pub add_on: AddOnFacts,
    pub key: Option<KeyFacts>,
    pub enabled: bool,
    pub always_use_key: bool,
    pub credits: CreditFacts,
    pub next_call: NextCall,
}

/// The card's headline.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A key is connected, and something keeps it from being used.
    Attention,
    /// A key is connected and switched off.
    Disabled,
    Connected,
    /// The account needs the add-on first.
    NotEnabled,
    /// A key may be connected.
    Available,
}

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize)]
pub struct AddOnFacts {
    pub required: bool,
    pub status: AddOnStatus,
    pub price_usd: &'static str,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub paid_through: Option<Timestamp>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub next_charge_at: Option<Timestamp>,
}

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize)]
pub struct KeyFacts {
    pub label: String,
    pub last4: String,
    pub sha256: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub saved_at: Timestamp,
    pub saved_by: String,
    pub state: KeyState,
    pub limit_usd: Option<String>,
    pub limit_remaining_usd: Option<String>,
    pub expires_at: Option<String>,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub checked_at: Timestamp,
}

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize)]
pub struct CreditFacts {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub available: Credits,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub minimum: Credits,
}

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize)]
pub struct NextCall {
    #[serde(serialize_with = "payer_name")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub payer: Payer,
    pub reason: &'static str,
}

impl Card {
    /// The card at `now`. `can_edit`: the reader is an owner. `cheapest_call`: the cost of the
    /// cheapest possible call to the default model, if known.
    pub fn of(
        account: &Account,
        now: Timestamp,
        policy: &Policy,
        can_edit: bool,
        cheapest_call: Option<Credits>,
    ) -> Self {
        let profile = &account.profile;
        let decision = routing::decide(Situation::of(account, now, policy));
        let available = account.balance.available();
        let covered = cheapest_call.is_some_and(|cheapest| available >= cheapest);
        let (payer, reason) = routing::next_call(decision, covered);
        let add_on_status = profile.add_on.status();
        Self {
            status: status(account, now, policy, decision),
            plan: profile.plan(),
            can_edit,
            add_on: AddOnFacts {
                required: routing::needs_add_on(profile.plan()),
                status: add_on_status,
                price_usd: PRICE_USD,
                paid_through: profile.add_on.paid_through(),
                next_charge_at: routing::add_on_due_at(profile)
                    .filter(|_| add_on_status == AddOnStatus::Active),
            },
            key: profile.key.clone().map(KeyFacts::from),
            enabled: profile.enabled,
            always_use_key: profile.always_use_key,
            credits: CreditFacts { available, minimum: policy.minimum_balance },
            next_call: NextCall { payer, reason },
        }
    }
}

impl From<SavedKey> for KeyFacts {
    fn from(key: SavedKey) -> Self {
        Self {
            label: key.label,
            last4: key.last4,
            sha256: key.sha256,
            saved_at: key.saved_at,
            saved_by: key.saved_by,
            state: key.state,
            limit_usd: key.limits.limit_usd,
            limit_remaining_usd: key.limits.limit_remaining_usd,
            expires_at: key.limits.expires_at,
            checked_at: key.checked_at,
        }
    }
}

/// The first status that applies.
fn status(account: &Account, now: Timestamp, policy: &Policy, decision: Decision) -> Status {
    let profile = &account.profile;
    let entitled = routing::entitled(profile.plan(), &profile.add_on, now, policy);
    let Some(key) = &profile.key else {
        return if entitled { Status::Available } else { Status::NotEnabled };
    };
    let past_due =
        routing::add_on_renews(profile) && profile.add_on.status() == AddOnStatus::PastDue;
    let under_minimum = decision == Decision::Refuse { reason: Reason::MinimumBalance };
    if key.state == KeyState::Rejected || past_due || !entitled || under_minimum {
        Status::Attention
    } else if profile.enabled || profile.always_use_key {
        Status::Connected
    } else {
        Status::Disabled
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn payer_name<S: Serializer>(payer: &Payer, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(payer.as_str())
}

#[cfg(test)]
mod tests {
    use account::add_on::{Collection, Fact, GenerationId};
    use account::{AccountId, AccountNumber, Balance, KeyId, KeyLimits, Period, Profile};
    use jiff::SignedDuration;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn policy() -> Policy {
        Policy {
            minimum_balance: Credits::from_micros(1_000_000),
            grace: SignedDuration::from_hours(8 * 24),
        }
    }

    fn account(plan: Plan, credits: i64) -> Account {
        let credits = Credits::from_micros(credits);
        Account {
            id: AccountId::new("acme").unwrap(),
            number: AccountNumber::new("n1").unwrap(),
            profile: Profile::new(plan, 1, Timestamp::UNIX_EPOCH),
            revision: 0,
            balance: Balance::new(credits, Credits::ZERO, Credits::ZERO, 0).unwrap(),
            created_at: at("2026-01-01T00:00:00Z"),
        }
    }

    fn key(state: KeyState) -> SavedKey {
        SavedKey {
            id: KeyId::new("key_1").unwrap(),
            label: "sk-or-v1-abc...xyz".to_owned(),
            last4: "wxyz".to_owned(),
            sha256: "ab".to_owned(),
            saved_at: at("2026-01-02T00:00:00Z"),
            saved_by: "user_1".to_owned(),
            state,
            limits: KeyLimits::default(),
            checked_at: at("2026-01-02T00:00:00Z"),
            unclear_error_at: None,
        }
    }

    fn buy(account: &mut Account) {
        account.profile.add_on.apply(Fact::Activated {
            generation: GenerationId::new("g"),
            at: at("2026-01-10T00:00:00Z"),
            collection: Collection::Card,
        });
    }

    fn card(account: &Account) -> Card {
        let now = at("2026-01-20T00:00:00Z");
        Card::of(account, now, &policy(), true, Some(Credits::MICRO))
    }

    #[test]
    fn the_status_is_the_first_that_applies() {
        let mut enterprise = account(Plan::Enterprise, 0);
        assert_eq!(card(&enterprise).status, Status::Available);
        enterprise.profile.connect(key(KeyState::Usable));
        assert_eq!(card(&enterprise).status, Status::Connected);
        enterprise.profile.enabled = false;
        assert_eq!(card(&enterprise).status, Status::Disabled);
        enterprise.profile.connect(key(KeyState::Rejected));
        assert_eq!(card(&enterprise).status, Status::Attention);

        let mut standard = account(Plan::Standard, 1_000_000);
        assert_eq!(card(&standard).status, Status::NotEnabled);
        buy(&mut standard);
        assert_eq!(card(&standard).status, Status::Available);
        standard.profile.connect(key(KeyState::Usable));
        assert_eq!(card(&standard).status, Status::Connected);

        let mut poor = standard.clone();
        poor.balance = account(Plan::Standard, 999_999).balance;
        assert_eq!(card(&poor).status, Status::Attention);
        poor.profile.enabled = false;
        assert_eq!(card(&poor).status, Status::Disabled, "the minimum matters to BYOK only");

        let mut past_due = standard.clone();
        past_due.profile.add_on.apply(Fact::Declined {
            generation: GenerationId::new("g"),
            period: Period::FIRST.next(),
        });
        assert_eq!(card(&past_due).status, Status::Attention);

        let mut lapsed = account(Plan::Standard, 1_000_000);
        lapsed.profile.connect(key(KeyState::Usable));
        assert_eq!(card(&lapsed).status, Status::Attention);
    }

    #[test]
    fn credits_that_do_not_cover_the_cheapest_call_pay_for_nothing() {
        let empty = card(&account(Plan::Standard, 0));
        assert_eq!(
            (empty.next_call.payer, empty.next_call.reason),
            (Payer::None, "insufficient_credits")
        );
        let one = card(&account(Plan::Standard, 1));
        assert_eq!(
            (one.next_call.payer, one.next_call.reason),
            (Payer::GretaCredits, "not_connected")
        );
    }

    #[test]
    fn every_member_is_there_and_absent_facts_are_null() {
        let mut standard = account(Plan::Standard, 1_500_000);
        let bare = serde_json::to_value(card(&standard)).unwrap();
        assert_eq!(
            bare,
            serde_json::json!({
                "status": "not_enabled", "plan": "standard", "can_edit": true,
                "add_on": {"required": true, "status": "none", "price_usd": "5.00",
                           "paid_through": null, "next_charge_at": null},
                "key": null, "enabled": false, "always_use_key": false,
                "credits": {"available": "1.5", "minimum": "1"},
                "next_call": {"payer": "greta_credits", "reason": "not_connected"},
            })
        );
        buy(&mut standard);
        standard.profile.connect(key(KeyState::Usable));
        let full = serde_json::to_value(card(&standard)).unwrap();
        assert_eq!(full["add_on"]["next_charge_at"], "2026-02-10T00:00:00Z");
        assert_eq!(
            full["key"],
            serde_json::json!({
                "label": "sk-or-v1-abc...xyz", "last4": "wxyz", "sha256": "ab",
                "saved_at": "2026-01-02T00:00:00Z", "saved_by": "user_1", "state": "usable",
                "limit_usd": null, "limit_remaining_usd": null, "expires_at": null,
                "checked_at": "2026-01-02T00:00:00Z",
            })
        );
        assert_eq!(full["next_call"]["payer"], "openrouter");
    }
}
