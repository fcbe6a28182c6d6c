//! The pages of Checkout Sessions and invoices: plain HTML and forms.

use maud::{Markup, html};

use super::card::Card;
use super::checkout::PayError;
use super::resources::{Invoice, Mode, Session, SessionStatus, Subscription};
use crate::html::page;

/// The session's page, with the reason why a payment just failed.
pub(super) fn checkout(session: &Session, problem: Option<&PayError>) -> String {
    let cancel = session.cancel_url.as_deref();
    let cancel = html! { @if let Some(url) = cancel { a href=(url) { "Back without paying" } } };
    simulated(match session.status {
        SessionStatus::Open => html! {
            h1 { (session.product) }
            p.price { (session_price(session)) }
            @let pay = if session.mode == Mode::Setup { "Save card" } else { "Pay" };
            (form(&format!("/checkout/{}", session.id), pay, problem))
            p { (cancel) }
        },
        SessionStatus::Complete => html! {
            h1 { "This was paid already." }
            p { a href=(session.return_url()) { "Go on" } }
        },
        SessionStatus::Expired => html! {
            h1 { "This checkout session has expired." }
            p { (cancel) }
        },
    })
}

/// The invoice's page, with the reason why a payment just failed.
pub(super) fn invoice(invoice: &Invoice, of: &Subscription, problem: Option<&PayError>) -> String {
    simulated(html! {
        h1 { "Invoice " (invoice.id) }
        p.price { (price(of.amount, &of.currency)) }
        @if invoice.paid_at.is_some() {
            p { "This was paid. You can close this page." }
        } @else if invoice.is_open() {
            (form(&format!("/invoice/{}", invoice.id), "Pay", problem))
        } @else {
            p { "This can no longer be paid." }
        }
    })
}

pub(super) fn not_found() -> String {
    simulated(html! { h1 { "There is no such page." } })
}

fn session_price(session: &Session) -> String {
    let currency = session.currency.as_deref().unwrap_or_default();
    match (session.mode, session.amount) {
        (_, None) => "Nothing is charged now".to_owned(),
        (Mode::Subscription, Some(cents)) => format!("{} a month", price(cents, currency)),
        (_, Some(cents)) => price(cents, currency),
    }
}

fn price(cents: i64, currency: &str) -> String {
    let (whole, rest) = (cents / 100, cents % 100);
    format!("{whole}.{rest:02} {}", currency.to_uppercase())
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
