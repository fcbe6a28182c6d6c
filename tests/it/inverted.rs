//! Every answer of `routing` matters: inverting one makes a flow test of each function that depends
//! on it fail.
//!
//! Each case runs one test of this binary again, as a child process with `ROUTING_INVERTED` set
//! (shared/routing/src/inverted.rs). `tests/invert-routing` runs all flow tests that way.

use std::process::Command;

const CALL: &str = "calls::a_plain_response_is_passed_on_unchanged";
const FALLBACK: &str = "fallback::each_cause_goes_to_the_default_ai_once";
const LOW_CREDITS: &str =
    "domain_events::credits_low::a_call_that_crosses_the_minimum_sends_an_event";
const SAVE: &str = "keys::a_saved_key_is_confirmed_in_the_products_wording";
const CARD: &str = "next_call::every_row_does_what_the_card_predicts";
const BUY: &str = "add_on::credits_can_pay_for_the_add_on";
const MONTH: &str = "add_on::the_add_on_is_bought_at_checkout_and_then_charged_each_month";
const PAY: &str = "add_on::a_past_due_period_can_be_paid_at_once";
const DECLINED: &str = "add_on::a_declined_card_is_retried_on_schedule_and_then_access_ends";
const STRIPE_RUNS: &str = "stripe_subscription::stripe_collects_each_month_and_we_follow";
const STRIPE_ENDED: &str = "stripe_subscription::endings::an_ended_subscription_is_not_resumed";
const STRIPE_EVENTS: &str = "stripe_subscription::the_order_of_events_does_not_matter";
const LATE: &str = "stripe_subscription::a_late_payment_that_is_not_owed_is_refunded";

/// An answer of routing, a function that asks for it, and a flow test of that function.
const CASES: [(&str, &str, &str); 21] = [
    ("decide", "ai-proxy", CALL),
    ("decide", "integration-settings", CARD),
    ("decide", "key-save", SAVE),
    ("entitled", "ai-proxy", CALL),
    ("entitled", "integration-settings", CARD),
    ("entitled", "key-save", SAVE),
    ("may_save_key", "key-save", SAVE),
    ("may_fall_back", "ai-proxy", FALLBACK),
    ("minimum_balance_applies", "ai-proxy", LOW_CREDITS),
    ("needs_add_on", "integration-settings", BUY),
    ("may_buy_add_on", "integration-settings", BUY),
    ("may_buy_add_on", "subscription-webhook", MONTH),
    ("add_on_due_at", "monthly-charge", MONTH),
    ("owes_add_on", "monthly-charge", MONTH),
    ("owes_period", "monthly-charge", DECLINED),
    ("owes_period", "integration-settings", PAY),
    ("payment_counts", "monthly-charge", MONTH),
    ("payment_counts", "subscription-webhook", LATE),
    ("add_on_renews", "monthly-charge", STRIPE_ENDED),
    ("keeps_subscription", "monthly-charge", STRIPE_RUNS),
    ("keeps_subscription", "subscription-webhook", STRIPE_EVENTS),
];

#[test]
fn inverting_any_answer_fails_a_test_of_each_function_that_asks() {
    let mut unnoticed = Vec::new();
    for (answer, function, test) in CASES {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--test-threads", "1"])
            .env("ROUTING_INVERTED", answer)
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&output.stdout);
        assert!(output.contains("running 1 test"), "no test {test}");
        if !output.contains("test result: FAILED. 0 passed; 1 failed") {
            unnoticed.push((answer, function, test));
        }
    }
    assert_eq!(unnoticed, []);
}
