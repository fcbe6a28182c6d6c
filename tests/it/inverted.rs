//! Each answer of `routing` is needed: with one of them inverted, a flow test of every function
//! that depends on it fails.
//!
//! Each case runs one test of this binary again, as a child process with `ROUTING_INVERTED` set
//! (shared/routing/src/inverted.rs). `tests/invert-routing` runs all flow tests that way.

use std::process::Command;

/// An answer of routing, a function that asks for it, and a flow test of that function.
const CASES: [(&str, &str, &str); 20] = [
    (
        "decide",
        "ai-proxy",
        "calls::a_plain_response_is_passed_on_unchanged",
    ),
    (
        "decide",
        "integration-settings",
        "next_call::row_9_is_an_account_without_a_key",
    ),
    (
        "decide",
        "key-save",
        "keys::a_key_is_saved_with_the_products_own_words",
    ),
    (
        "entitled",
        "ai-proxy",
        "calls::a_plain_response_is_passed_on_unchanged",
    ),
    (
        "entitled",
        "key-save",
        "keys::a_key_is_saved_with_the_products_own_words",
    ),
    (
        "may_save_key",
        "key-save",
        "keys::a_key_is_saved_with_the_products_own_words",
    ),
    (
        "may_fall_back",
        "ai-proxy",
        "fallback::each_cause_goes_to_the_default_ai_once",
    ),
    (
        "minimum_balance_applies",
        "ai-proxy",
        "domain_events::credits_low::a_call_tells_once",
    ),
    (
        "needs_add_on",
        "integration-settings",
        "add_on::credits_can_pay_for_the_add_on",
    ),
    (
        "may_buy_add_on",
        "integration-settings",
        "add_on::credits_can_pay_for_the_add_on",
    ),
    ("may_buy_add_on", "subscription-webhook", "add_on::BOUGHT"),
    (
        "add_on_due_at",
        "monthly-charge",
        "charge_queue::a_message_that_comes_twice_charges_once",
    ),
    (
        "owes_period",
        "monthly-charge",
        "charge_queue::a_message_that_comes_twice_charges_once",
    ),
    (
        "owes_period",
        "integration-settings",
        "add_on::what_is_past_due_can_be_paid_at_once",
    ),
    (
        "payment_counts",
        "monthly-charge",
        "charge_queue::a_message_that_comes_twice_charges_once",
    ),
    (
        "payment_counts",
        "subscription-webhook",
        "add_on::what_is_past_due_can_be_paid_at_once",
    ),
    ("add_on_renews", "monthly-charge", "provider_run::X"),
    ("owes_add_on", "monthly-charge", "provider_run::X"),
    ("keeps_subscription", "monthly-charge", "provider_run::X"),
    (
        "keeps_subscription",
        "subscription-webhook",
        "provider_run::X",
    ),
];

#[test]
fn every_answer_is_needed_by_every_function_that_asks() {
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
