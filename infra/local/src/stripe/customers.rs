//! Customers and their payment methods.

use serde_json::{Value, json};

use super::error::ApiError;
use super::params::Params;
use super::state::StripeState;
use super::subscriptions;

pub(super) fn create(state: &mut StripeState, params: &Params) -> Result<String, ApiError> {
    params.only("email metadata")?;
    let (email, metadata) = (params.get("email"), params.map("metadata"));
    Ok(state.add("cus", "customer", json!({"email": email, "metadata": metadata})))
}

/// Deletes a customer, as in the dashboard: its cards are detached, and its subscriptions end.
pub(super) fn delete(state: &mut StripeState, customer: &str) {
    let of_customer =
        |(id, it): (&String, &Value)| (it["customer"] == customer).then(|| id.clone());
    let methods: Vec<_> = state.all("pm_").filter_map(of_customer).collect();
    for method in methods {
        detach(state, &method);
    }
    let subscriptions: Vec<_> = state.all("sub_").filter_map(of_customer).collect();
    for subscription in subscriptions {
        // One that has ended stays as it is.
        let _ = subscriptions::cancel(state, &subscription);
    }
    state.replace(customer, json!({"id": customer, "object": "customer", "deleted": true}));
}

/// Detaches a payment method from its customer: it can never be charged again.
pub(super) fn detach(state: &mut StripeState, method: &str) {
    state.set(method, json!({"customer": null}));
}
