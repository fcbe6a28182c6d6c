//! The pages of Checkout Sessions and invoices: plain HTML and forms.

use maud::{Markup, html};
use serde_json::Value;

use super::card::{Card, PayError};
use crate::html::page;

pub(super) fn checkout(session: &Value, problem: Option<&PayError>) -> String {
    let text = |name: &str| session[name].as_str().unwrap_or_default();
    let back = html! {
        @if let Some(url) = session["cancel_url"].as_str() {
            p { a href=(url) { "Back without paying" } }
        }
    };
    simulated(match text("status") {
        "open" => html! {
            h1 { (text("_product")) }
            p.price {
                @match text("mode") {
                    "setup" => "Nothing is charged now",
                    "subscription" => { (price(&session["amount_total"])) " a month" }
                    _ => (price(&session["amount_total"])),
                }
            }
            @let pay = if session["mode"] == "setup" { "Save card" } else { "Pay" };
            (form(&format!("/checkout/{}", text("id")), pay, problem))
            (back)
        },
        "complete" => html! {
            h1 { "This was paid already." }
            p { a href=(text("_return_url")) { "Go on" } }
        },
        _ => html! {
            h1 { "This checkout session has expired." }
            (back)
        },
    })
}

pub(super) fn invoice(invoice: &Value, problem: Option<&PayError>) -> String {
    let id = invoice["id"].as_str().unwrap_or_default();
    simulated(html! {
        h1 { "Invoice " (id) }
        p.price { (price(&invoice["total"])) }
        @match invoice["status"].as_str() {
            Some("paid") => p { "This was paid. You can close this page." },
            Some("open") => (form(&format!("/invoice/{id}"), "Pay", problem)),
            _ => p { "This can no longer be paid." },
        }
    })
}

pub(super) fn not_found() -> String {
    simulated(html! { h1 { "There is no such page." } })
}

fn price(cents: &Value) -> String {
    let cents = cents.as_i64().unwrap_or_default();
    format!("{}.{:02} USD", cents / 100, cents % 100)
}

/// A choice of test cards, and the buttons to pay with them.
fn form(path: &str, pay: &str, problem: Option<&PayError>) -> Markup {
    html! {
        @if let Some(problem) = problem {
            p.problem role="alert" { (problem) }
        }
        form method="post" action={ (path) "/pay" } {
            label for="card" { "Test card" }
            select #card name="card" {
                @for (_, name, label) in Card::ALL { option value=(name) { (label) } }
            }
            button.pay { (pay) }
            button formaction={ (path) "/decline" } { "Decline" }
        }
    }
}

fn simulated(body: Markup) -> String {
    let note = html! { p.note { "A Stripe simulator: no money moves." } };
    page("Checkout (simulated)", &html! { (body) (note) }).into_string()
}
