//! The names in Stripe's responses that are kept and logged. Any other text may contain a caller's
//! input, and becomes [`OTHER`].
//!
//! Sources: <https://docs.stripe.com/error-codes>, <https://docs.stripe.com/declines/codes>.

use serde_json::Value;

use crate::decline::{AUTHENTICATION, HARD};
use crate::read;

pub(crate) const OTHER: &str = "other";

/// Error codes, and the types of errors without a code.
const CODES: &str = "
    account_invalid amount_too_large amount_too_small api_error api_key_expired
    authentication_required card_declined card_error charge_already_captured
    charge_already_refunded charge_disputed customer_max_payment_methods expired_card
    idempotency_error idempotency_key_in_use incorrect_cvc incorrect_number insufficient_funds
    intent_invalid_state invalid_charge_amount invalid_request_error invoice_not_editable
    livemode_mismatch lock_timeout missing parameter_invalid_empty parameter_invalid_integer
    parameter_missing parameter_unknown payment_intent_authentication_failure
    payment_intent_unexpected_state payment_method_not_available payment_method_unactivated
    payment_method_unexpected_state processing_error rate_limit resource_already_exists
    resource_missing secret_key_required testmode_charges_only
";

/// Parameters of our requests, without brackets, and object names in paths.
const PARAMS: &str = "
    amount cancel_at_period_end charge currency customer default_payment_method expires_at id
    intent invoice line_items mode payment_intent payment_method session setup_intent
    subscription
";

/// Reasons for soft declines; those for hard ones are in `decline`.
const SOFT: &str = "
    approve_with_id call_issuer card_velocity_exceeded do_not_honor duplicate_transaction
    generic_decline insufficient_funds issuer_not_available no_action_taken not_permitted
    processing_error reenter_transaction service_not_allowed transaction_not_allowed
    try_again_later withdrawal_count_limit_exceeded
";

/// The error's code or, if it has none, its type.
pub(crate) fn code(error: &Value) -> Option<&'static str> {
    let code = read::text(error, "code").or_else(|| read::text(error, "type"))?;
    Some(known(code, &[CODES, HARD, AUTHENTICATION]))
}

pub(crate) fn param(error: &Value) -> Option<&'static str> {
    let param = read::text(error, "param")?;
    Some(known(param.split('[').next().unwrap_or_default(), &[PARAMS]))
}

pub(crate) fn decline_code(error: &Value) -> Option<&'static str> {
    let code = read::text(error, "decline_code")?;
    Some(known(code, &[SOFT, HARD, AUTHENTICATION]))
}

/// The entry of `lists` that equals `name`, or [`OTHER`].
fn known(name: &str, lists: &[&'static str]) -> &'static str {
    let names = lists.iter().flat_map(|list| list.split_whitespace());
    names.into_iter().find(|known| *known == name).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_names_become_other() {
        let error = json!({"type": "card_error", "code": "card_declined",
            "decline_code": "lost_card", "param": "payment_method"});
        let kept = (code(&error), decline_code(&error), param(&error));
        assert_eq!(kept, (Some("card_declined"), Some("lost_card"), Some("payment_method")));
        let nested = json!({"type": "invalid_request_error", "param": "line_items[0][price_data]"});
        let kept = (code(&nested), param(&nested));
        assert_eq!(kept, (Some("invalid_request_error"), Some("line_items")));
        let text = "someone@example.com";
        let error = json!({"type": text, "code": text, "decline_code": text, "param": text});
        let kept = (code(&error), decline_code(&error), param(&error));
        assert_eq!(kept, (Some(OTHER), Some(OTHER), Some(OTHER)));
        assert_eq!((code(&json!({})), param(&json!({}))), (None, None));
    }
}
