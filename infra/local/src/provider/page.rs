//! The checkout page: plain HTML and forms.

use super::acts::PayError;
use super::card::Card;
use super::objects::{Mode, Session, SessionStatus};
use super::state::ProviderState;
use crate::html::{self, escaped};

/// The page of a session, and with it the reason why it was not paid just now.
pub(super) fn checkout(state: &ProviderState, id: &str, problem: Option<&PayError>) -> String {
    let Some(session) = state.sessions.get(id) else {
        return page("<h1>There is no such checkout session.</h1>");
    };
    let body = match session.status {
        SessionStatus::Open => open(session, problem),
        SessionStatus::Complete => format!(
            "<h1>This was paid already.</h1><p>{}</p>",
            link(&return_url(session), "Go on")
        ),
        SessionStatus::Expired => format!(
            "<h1>This checkout session has expired.</h1><p>{}</p>",
            cancel(session)
        ),
    };
    page(&body)
}

/// The page of an invoice, and with it the reason why it was not paid just now.
pub(super) fn invoice(state: &ProviderState, id: &str, problem: Option<&PayError>) -> String {
    let Some(invoice) = state.invoices.get(id) else {
        return page("<h1>There is no such invoice.</h1>");
    };
    let of = &state.subscriptions[&invoice.subscription];
    let price = price(of.amount, &of.currency);
    let rest = match (invoice.paid_at, invoice.is_open()) {
        (Some(_), _) => "<p>This was paid. You can close this page.</p>".to_owned(),
        (None, true) => form(&format!("/invoice/{id}"), "Pay", problem),
        (None, false) => "<p>This cannot be paid any more.</p>".to_owned(),
    };
    page(&format!(
        "<h1>Invoice {id}</h1>\n<p class=\"price\">{price}</p>\n{rest}",
        price = escaped(&price)
    ))
}

/// Where the browser goes once it is paid.
fn return_url(session: &Session) -> String {
    session
        .success_url
        .replace("{CHECKOUT_SESSION_ID}", &session.id)
}

fn open(session: &Session, problem: Option<&PayError>) -> String {
    let price = match (session.mode, session.amount) {
        (_, None) => "Nothing is charged now".to_owned(),
        (mode, Some(cents)) => {
            let currency = session.currency.as_deref().unwrap_or_default();
            let each = match mode {
                Mode::Subscription => " a month",
                _ => "",
            };
            format!("{}{each}", self::price(cents, currency))
        }
    };
    let pay = match session.mode {
        Mode::Setup => "Save card",
        Mode::Payment | Mode::Subscription => "Pay",
    };
    format!(
        "<h1>{product}</h1>\n<p class=\"price\">{price}</p>\n{form}\n<p>{cancel}</p>",
        product = escaped(&session.product),
        price = escaped(&price),
        form = form(&format!("/checkout/{}", session.id), pay, problem),
        cancel = cancel(session),
    )
}

fn price(cents: i64, currency: &str) -> String {
    let (whole, rest) = (cents / 100, cents % 100);
    format!("{whole}.{rest:02} {}", currency.to_uppercase())
}

/// A choice of cards, and whether they pay.
fn form(path: &str, pay: &str, problem: Option<&PayError>) -> String {
    let problem = problem.map(|problem| {
        let problem = escaped(&problem.to_string());
        format!("<p class=\"problem\" role=\"alert\">{problem}</p>")
    });
    let cards = Card::ALL.iter().map(|(_, name, label)| {
        let label = escaped(label);
        format!("<option value=\"{name}\">{label}</option>")
    });
    format!(
        "{problem}\n\
         <form method=\"post\" action=\"{path}/pay\">\n\
         <label for=\"card\">Test card</label>\n\
         <select id=\"card\" name=\"card\">{cards}</select>\n\
         <button class=\"pay\">{pay}</button>\n\
         <button formaction=\"{path}/decline\">Decline</button>\n\
         </form>",
        problem = problem.unwrap_or_default(),
        cards = cards.collect::<String>(),
    )
}

fn cancel(session: &Session) -> String {
    let url = session.cancel_url.as_deref();
    url.map_or_else(String::new, |url| link(url, "Back without paying"))
}

fn link(url: &str, text: &str) -> String {
    format!("<a href=\"{}\">{text}</a>", escaped(url))
}

fn page(body: &str) -> String {
    let note = "<p class=\"note\">A simulated payment provider: no money moves.</p>";
    html::page("Checkout (simulated)", &format!("{body}\n{note}"))
}
