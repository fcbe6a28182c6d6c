//! A Stripe simulator: the part of Stripe's API that the product uses, the checkout page, and
//! webhooks, on its own listener.
//!
//! [`StripeState`] holds the resources, without I/O or a clock; the modules named after resources
//! change it. [`StripeHandle`] adds a clock and delivers the events, and [`StripeSimulator`] serves
//! it over HTTP. The payer chooses on the page how a charge ends ([`Card`]); a test chooses it with
//! [`StripeHandle::set_card`] and [`StripeHandle::script`].

mod admission;
mod api;
mod card;
mod checkout;
mod customers;
mod error;
mod handle;
mod invoices;
mod page;
mod params;
mod payment_intents;
mod refunds;
mod routes;
mod state;
mod subscriptions;
mod time;
mod webhooks;

use std::io;
use std::ops::Deref;

use axum::Router;
use edge::Clock;

pub use admission::{ApiRequest, ApiResponse};
pub use card::{Card, PayError};
pub use handle::StripeHandle;
pub use params::Params;
pub use state::{API_VERSION, Event, NotPossible, Payment, StripeState};
pub use webhooks::{Delivery, Webhooks};

use crate::serve::{self, Server};

/// A simulator that runs until stopped or dropped.
#[derive(Debug)]
pub struct StripeSimulator {
    handle: StripeHandle,
    pub(crate) server: Server,
}

impl StripeSimulator {
    /// Starts a simulator on a free port, without any resources.
    pub async fn start(clock: Clock, livemode: bool) -> io::Result<Self> {
        let listener = serve::listener().await?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let handle = StripeHandle::new(StripeState::new(&base_url, livemode), clock)?;
        let server = Server::on(listener, routes::router(handle.clone()))?;
        Ok(Self { handle, server })
    }

    /// `http://127.0.0.1:PORT`; the API is below `/v1`.
    pub fn base_url(&self) -> String {
        self.server.url()
    }

    /// The same routes without a listener.
    pub fn router(&self) -> Router {
        routes::router(self.handle.clone())
    }
}

impl Deref for StripeSimulator {
    type Target = StripeHandle;

    fn deref(&self) -> &StripeHandle {
        &self.handle
    }
}

#[cfg(test)]
mod tests;
