//! The checkout page: plain HTML and forms.

use super::acts::PayError;
use super::card::Card;
use super::objects::{Mode, Session, SessionStatus};
use super::state::ProviderState;

const STYLE: &str = "
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: #1a1f36; background: #f6f8fa; }
main { max-width: 26rem; margin: 0 auto; padding: 1.5rem 1rem; }
h1 { font-size: 1.1rem; font-weight: 600; margin: 0; }
.price { font-size: 2rem; font-weight: 600; margin: 0 0 1.5rem; }
.note { color: #697386; font-size: .875rem; }
.problem { color: #a4132e; background: #fdecef; padding: .6rem .8rem; border-radius: .4rem; }
label { display: block; font-weight: 600; margin-bottom: .3rem; }
select, button { width: 100%; font: inherit; padding: .65rem; border-radius: .4rem; border: 1px solid #c0c8d2; background: #fff; box-sizing: border-box; }
button { margin-top: .75rem; cursor: pointer; }
button.pay { color: #fff; background: #0b5fff; border-color: #0b5fff; font-weight: 600; }
";

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
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Checkout (simulated)</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         {body}\n<p class=\"note\">A simulated payment provider: no money moves.</p>\n\
         </main>\n</body>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}
