//! Why a card was declined, and whether to try it again.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::read::text;

/// Codes after which the same card is never tried again. The first nine are those that Stripe's own
/// retries do not send to the network without a new card (`authentication_required` is separate
/// here); the others say that the card, its data or its holder's consent is gone for good.
/// Sources: <https://docs.stripe.com/billing/revenue-recovery/smart-retries>,
/// <https://docs.stripe.com/declines/codes>.
pub(crate) const HARD: &str = "
    highest_risk_level incorrect_number lost_card pickup_card
    revocation_of_all_authorizations revocation_of_authorization stolen_card
    transaction_not_allowed card_not_supported currency_not_supported do_not_try_again
    expired_card fraudulent invalid_account invalid_expiry_month invalid_expiry_year
    invalid_number merchant_blacklist new_account_information_available restricted_card
    stop_payment_order testmode_decline
";

/// The issuer's own advice after which the same card is never tried again.
/// Source: <https://docs.stripe.com/declines/card#retrying-issuer-declines>.
const HARD_ADVICE: &str = "do_not_try_again confirm_card_data";

/// Codes after which the cardholder has to be present.
pub(crate) const AUTHENTICATION: &str = "
    authentication_required authentication_not_handled payment_intent_authentication_failure
";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decline {
    /// The same card is never tried again.
    pub hard: bool,
    /// The card can be charged only with the cardholder present.
    pub needs_authentication: bool,
}

impl Decline {
    /// Reads `last_payment_error`, or the error of a response, which has the same form.
    pub(crate) fn read(error: &Value) -> Option<Self> {
        let codes = [text(error, "code"), text(error, "decline_code")];
        let is_in = |list: &str, code| list.split_whitespace().any(|known| Some(known) == code);
        let is_one_of = |list| codes.iter().any(|code| is_in(list, *code));
        error.is_object().then(|| Self {
            hard: is_one_of(HARD) || is_in(HARD_ADVICE, text(error, "advice_code")),
            needs_authentication: is_one_of(AUTHENTICATION),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn declines_are_hard_or_not() {
        let declined = |code: &str| json!({"code": "card_declined", "decline_code": code});
        // error → (hard, needs authentication)
        let table = [
            (declined("generic_decline"), (false, false)),
            (declined("insufficient_funds"), (false, false)),
            (declined("do_not_honor"), (false, false)),
            (declined("card_velocity_exceeded"), (false, false)),
            (declined("processing_error"), (false, false)),
            (declined("try_again_later"), (false, false)),
            (declined("a_code_of_the_future"), (false, false)),
            (declined("lost_card"), (true, false)),
            (declined("stolen_card"), (true, false)),
            (declined("pickup_card"), (true, false)),
            (declined("fraudulent"), (true, false)),
            (declined("restricted_card"), (true, false)),
            (declined("invalid_account"), (true, false)),
            (declined("revocation_of_authorization"), (true, false)),
            (declined("authentication_required"), (false, true)),
            (json!({"code": "authentication_required"}), (false, true)),
            (json!({"code": "expired_card"}), (true, false)),
            (json!({"code": "incorrect_number"}), (true, false)),
            (json!({"code": "card_decline_rate_limit_exceeded"}), (false, false)),
            (json!({"code": "card_declined", "advice_code": "do_not_try_again"}), (true, false)),
            (json!({"advice_code": "confirm_card_data"}), (true, false)),
            (json!({"advice_code": "try_again_later"}), (false, false)),
            (json!({}), (false, false)),
        ];
        for (error, expected) in table {
            let decline = Decline::read(&error).unwrap();
            let found = (decline.hard, decline.needs_authentication);
            assert_eq!(found, expected, "{error}");
        }
        assert_eq!(Decline::read(&Value::Null), None);
    }
}
