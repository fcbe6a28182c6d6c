//! Buying the add-on, and paying for its open period, on a page of the provider's.

use std::time::Duration;

use account::add_on::Collection;
use account::billing::{AddOnPurchase, Checkout, IntentState, PRICE_CENTS, Session};
use account::{Account, AddOnStatus, Credits, EntryId};
use billing::CHECKOUT_LIFE;
use jiff::{SignedDuration, Timestamp};
use payments::{
    Cents, CheckoutStatus, CustomerId, IntentId, IntentStatus, NewCheckout, PaymentError, Price,
    Purpose, SessionId,
};
use store::{CreditPayment, Effect, PaymentOrder, Purchase};
use url::Url;

use crate::{Charging, ChargingError};

/// The product's name, from the product document.
const PRODUCT: &str = "Power your AI with OpenRouter \u{2013} $5 Add-on";
const CREDITS: &str = "Greta credits";
/// A page that is about to close is not shown again.
const STILL_TIME: SignedDuration = SignedDuration::from_mins(2);
const ROUNDS: usize = 8;

/// What buying led to.
#[derive(Debug, Clone, PartialEq)]
pub enum Bought {
    /// The user pays there.
    Checkout(Url),
    /// Credits paid it.
    Paid,
    /// The cancellation was taken back; nothing is to be paid.
    Resumed,
}

/// Why nothing can be bought.
#[derive(Debug, thiserror::Error)]
pub enum NotBought {
    #[error("the plan includes OpenRouter")]
    NotNeeded,
    #[error("the add-on is active already")]
    Already,
    #[error("fewer than {0} credits are available")]
    Insufficient(Credits),
    #[error("no card is charged")]
    Nothing,
    #[error("it is not known yet whether an earlier payment succeeded")]
    InProgress,
    #[error(transparent)]
    Failed(#[from] ChargingError),
}

impl From<PaymentError> for NotBought {
    fn from(error: PaymentError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<store::StoreError> for NotBought {
    fn from(error: store::StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<payments::IdError> for NotBought {
    fn from(error: payments::IdError) -> Self {
        Self::Failed(error.into())
    }
}

/// A page of the provider's that nothing of the account waits for.
struct Page<'a> {
    purpose: Purpose<'a>,
    buys: Purchase,
    amount_cents: u64,
    /// The idempotency key of its making.
    order: String,
}

impl Charging {
    /// Purchase the add-on, pays its open period, or takes a cancellation back: whatever the account's
    /// state asks for. Never are there two things at once that could be paid.
    ///
    /// # Errors
    /// [`NotBought`]
    pub async fn buy(&self, mut account: Account, now: Timestamp) -> Result<Bought, NotBought> {
        for _ in 0..ROUNDS {
            let profile = &account.profile;
            if !routing::needs_add_on(profile.plan()) {
                return Err(NotBought::NotNeeded);
            }
            if billing::is_over(profile, now) {
                account = self.worked_off(&account, now).await?;
                continue;
            }
            match profile.add_on.status() {
                AddOnStatus::Cancelling if billing::can_resume(profile) => {
                    let resumed = self.change(&account.id, now, |profile| {
                        billing::resume(profile, now);
                        // What we know of it may be old: it is told, and so shows whether it still runs.
                        let collects = profile.billing.subscription.as_ref();
                        if let Some(id) = collects.map(|it| it.id.clone()) {
                            billing::subscription_uncertain(profile, &id);
                        }
                    });
                    let resumed = resumed.await?;
                    if resumed.profile.add_on.status() == AddOnStatus::Cancelling {
                        account = resumed;
                        continue;
                    }
                    // The provider is told at once; if that fails, the billing tick does it.
                    if let Err(error) = Box::pin(self.work(&account.id, now)).await {
                        edge::log_error(&error, "the provider does not know yet of a resumption");
                    }
                    // Told to go on, it may have turned out to be over.
                    let told = self.store.accounts.get(&account.id).await?;
                    let told = told.ok_or(ChargingError::Gone)?.profile;
                    if told.add_on.status() == AddOnStatus::Cancelling
                        && !billing::can_resume(&told)
                    {
                        return Err(NotBought::Already);
                    }
                    return Ok(Bought::Resumed);
                }
                AddOnStatus::Active | AddOnStatus::Cancelling => return Err(NotBought::Already),
                _ => {}
            }
            if let Some(subscription) = &profile.billing.subscription {
                if profile.add_on.status() == AddOnStatus::PastDue {
                    if let Some(url) = self.open_invoice(subscription, now).await? {
                        return Ok(Bought::Checkout(url));
                    }
                } else {
                    self.stop(&subscription.id, now).await?;
                }
            } else if let Some(object) = Self::open_object(profile).cloned() {
                Box::pin(self.clear(&account, &object, now)).await?;
            } else if let Some(checkout) = profile.billing.checkout.clone() {
                if let Some(url) = self.shown_again(&account, &checkout, now).await? {
                    return Ok(Bought::Checkout(url));
                }
            } else if let Some(wanted) = billing::next_purchase(profile) {
                if self.collection_of(&account, &wanted) == Collection::Credits {
                    return self.buy_with_credits(&account, &wanted, now).await;
                }
                let (order, collection) =
                    (edge::new_id("ord"), self.collection_of(&account, &wanted));
                self.change(&account.id, now, |profile| {
                    if profile.billing.checkout.is_none()
                        && billing::next_purchase(profile).as_ref() == Some(&wanted)
                    {
                        let (order, wanted) = (order.clone(), wanted.clone());
                        billing::begin_checkout(profile, order, wanted, collection, now);
                    }
                })
                .await?;
            } else {
                account = self.worked_off(&account, now).await?;
                continue;
            }
            let read = self.store.accounts.get(&account.id).await?;
            account = read.ok_or(ChargingError::Gone)?;
        }
        Err(ChargingError::Contended.into())
    }

    /// The account, once what is due for it is done: what is over shows itself.
    async fn worked_off(
        &self,
        account: &Account,
        now: Timestamp,
    ) -> Result<Account, ChargingError> {
        Box::pin(self.work(&account.id, now)).await?;
        let read = self.store.accounts.get(&account.id).await?;
        read.ok_or(ChargingError::Gone)
    }

    /// Who collects what is bought: a generation keeps to what it began with.
    fn collection_of(&self, account: &Account, wanted: &AddOnPurchase) -> Collection {
        let kept = account.profile.add_on.collection();
        match wanted {
            AddOnPurchase::Generation => self.settings.collection,
            AddOnPurchase::Period { .. } => kept.unwrap_or(self.settings.collection),
        }
    }

    async fn buy_with_credits(
        &self,
        account: &Account,
        wanted: &AddOnPurchase,
        now: Timestamp,
    ) -> Result<Bought, NotBought> {
        let paid = match wanted {
            AddOnPurchase::Generation => self.activate(account, now).await?,
            AddOnPurchase::Period { generation, period } => {
                self.pay_period(account, generation, *period, now).await?
            }
        };
        match paid {
            CreditPayment::Paid => Ok(Bought::Paid),
            CreditPayment::NotOwed => Err(NotBought::Already),
            CreditPayment::Insufficient => Err(NotBought::Insufficient(self.settings.price)),
        }
    }

    /// Makes sure that an unresolved payment object cannot be paid beside a checkout.
    async fn clear(
        &self,
        account: &Account,
        object: &IntentState,
        now: Timestamp,
    ) -> Result<(), NotBought> {
        let id = match object {
            IntentState::Idle { id } | IntentState::Confirming { id, .. } => {
                IntentId::new(id.as_str())?
            }
            IntentState::None => return Ok(()),
            IntentState::Creating => return Err(NotBought::InProgress),
        };
        let key = self.key().await?;
        let found = match object {
            IntentState::Idle { .. } => self.stripe.cancel_intent(&key, &id).await?,
            _ => self.stripe.intent(&key, &id).await?,
        };
        match (found.status, object) {
            (IntentStatus::Succeeded, _) => {
                self.apply_intent(&found, now).await?;
            }
            (IntentStatus::Canceled, _) => {
                self.change(&account.id, now, |profile| {
                    billing::intent_cancelled(profile, id.as_str())
                })
                .await?;
            }
            // A known decline: written down as one by the next step for the account.
            (
                IntentStatus::RequiresPaymentMethod | IntentStatus::RequiresAction,
                IntentState::Confirming { .. },
            ) => {
                self.change(&account.id, now, |profile| {
                    billing::look_up_now(profile, id.as_str(), now);
                })
                .await?;
                Box::pin(self.work(&account.id, now)).await?;
            }
            _ => return Err(NotBought::InProgress),
        }
        Ok(())
    }

    /// The page of a checkout that is there already. `None` if it was closed, or paid.
    async fn shown_again(
        &self,
        account: &Account,
        checkout: &Checkout,
        now: Timestamp,
    ) -> Result<Option<Url>, NotBought> {
        let until = now.saturating_add(STILL_TIME).unwrap_or(now);
        let can_be_paid = billing::is_payable(&account.profile, checkout, until);
        let Some(session) = &checkout.session else {
            if can_be_paid {
                return self.make(account, checkout, now).await;
            }
            self.change(&account.id, now, |profile| {
                let known = profile.billing.checkout.as_ref();
                // Whoever was making it may have finished meanwhile.
                let is_unmade =
                    |known: &Checkout| known.order == checkout.order && known.session.is_none();
                if known.is_some_and(is_unmade) {
                    profile.billing.checkout = None;
                }
            })
            .await?;
            return Ok(None);
        };
        let (key, id) = (self.key().await?, SessionId::new(session.id.as_str())?);
        let found = if can_be_paid {
            self.stripe.checkout(&key, &id).await?
        } else {
            self.stripe.expire_checkout(&key, &id).await?
        };
        if found.paid {
            self.apply_checkout(&found, now).await?;
            return Ok(None);
        }
        match found.status {
            CheckoutStatus::Open => {
                let url = session.url.parse().map_err(ChargingError::Url)?;
                Ok(Some(url))
            }
            CheckoutStatus::Expired => {
                self.closed(account, &session.id, now).await?;
                Ok(None)
            }
            CheckoutStatus::Complete | CheckoutStatus::Other => Err(NotBought::InProgress),
        }
    }

    /// The account at the provider; made when it is first needed.
    async fn customer(
        &self,
        account: &Account,
        now: Timestamp,
    ) -> Result<CustomerId, ChargingError> {
        if let Some(customer) = &account.profile.billing.customer {
            return Ok(CustomerId::new(customer.as_str())?);
        }
        let name = format!("{}-customer", account.number);
        let key = self.key().await?;
        let customer = once(|| self.stripe.create_customer(&key, &account.number, &name)).await?;
        self.change(&account.id, now, |profile| {
            let known = &mut profile.billing.customer;
            known.get_or_insert_with(|| customer.to_string());
        })
        .await?;
        Ok(customer)
    }

    /// A page on which the account's card can be replaced.
    ///
    /// # Errors
    /// [`NotBought::Nothing`] where no card is charged.
    pub async fn replace_card(&self, account: &Account, now: Timestamp) -> Result<Url, NotBought> {
        let is_charged = matches!(
            account.profile.add_on.status(),
            AddOnStatus::Active | AddOnStatus::PastDue | AddOnStatus::Cancelling
        );
        let with_credits = account.profile.add_on.collection() == Some(Collection::Credits);
        if !is_charged || with_credits {
            return Err(NotBought::Nothing);
        }
        let page = Page {
            purpose: Purpose::Setup,
            buys: Purchase::Card,
            amount_cents: 0,
            order: edge::new_id("ord"),
        };
        Ok(self.open_page(account, page, now).await?)
    }

    /// A page on which `usd_cents` buy `credits`.
    ///
    /// # Errors
    /// [`ChargingError`]
    pub async fn buy_credits(
        &self,
        account: &Account,
        usd_cents: u64,
        credits: Credits,
        now: Timestamp,
    ) -> Result<Url, ChargingError> {
        let order = edge::new_id("ord");
        let page = Page {
            purpose: Purpose::Payment {
                price: Price {
                    product: CREDITS,
                    amount: Cents::new(usd_cents),
                },
                keep_card: false,
            },
            buys: Purchase::Credits {
                entry: EntryId::new(order.as_str())?,
                credits,
            },
            amount_cents: usd_cents,
            order,
        };
        self.open_page(account, page, now).await
    }

    /// Makes a page and stores what it is for, before anybody is shown it.
    async fn open_page(
        &self,
        account: &Account,
        page: Page<'_>,
        now: Timestamp,
    ) -> Result<Url, ChargingError> {
        let customer = self.customer(account, now).await?;
        // What the web page is to wait for, since the provider tells us and not the browser.
        let paid = match &page.buys {
            Purchase::Credits { entry: order, .. } => format!("checkout=credits&order={order}"),
            _ => "checkout=card".to_owned(),
        };
        let new = NewCheckout {
            purpose: page.purpose,
            customer: Some(&customer),
            success_url: &self.page("/settings/integrations", &paid),
            cancel_url: &self.page("/settings/integrations", "checkout=cancelled"),
            client_reference_id: &page.order,
            expires_at: now.saturating_add(CHECKOUT_LIFE).unwrap_or(now),
        };
        let key = self.key().await?;
        let made = self.stripe.create_checkout(&key, &new, &page.order).await?;
        let closes_at = made.expires_at.unwrap_or(new.expires_at);
        let order = PaymentOrder {
            stripe_id: made.id.to_string(),
            account_number: account.number.clone(),
            purchase: page.buys,
            amount_cents: page.amount_cents,
            created_at: now,
        };
        self.store
            .payments
            .create_session_order(&order, closes_at)
            .await?;
        Ok(made.url.unwrap_or_default().parse()?)
    }

    /// Makes the provider's side of a checkout. All that is sent follows from what is stored, so that
    /// making it twice makes one.
    async fn make(
        &self,
        account: &Account,
        checkout: &Checkout,
        now: Timestamp,
    ) -> Result<Option<Url>, NotBought> {
        let key = self.key().await?;
        let customer = self.customer(account, now).await?;
        let (success_url, cancel_url) = (
            self.page("/settings/integrations", "checkout=done"),
            self.page("/plans", "checkout=cancelled"),
        );
        let ends = checkout.created_at.saturating_add(CHECKOUT_LIFE);
        let price = Price {
            product: PRODUCT,
            amount: Cents::new(PRICE_CENTS),
        };
        let new = NewCheckout {
            purpose: match checkout.collection {
                Collection::Provider => Purpose::Subscription { price },
                Collection::Card | Collection::Credits => Purpose::Payment {
                    price,
                    keep_card: true,
                },
            },
            customer: Some(&customer),
            success_url: &success_url,
            cancel_url: &cancel_url,
            client_reference_id: &checkout.order,
            expires_at: ends.unwrap_or(checkout.created_at),
        };
        let made = once(|| self.stripe.create_checkout(&key, &new, &checkout.order)).await?;
        let (Some(url), Some(expires_at)) = (&made.url, made.expires_at) else {
            return Err(NotBought::InProgress);
        };
        let session = Session {
            id: made.id.to_string(),
            url: url.clone(),
            expires_at,
        };
        let order = PaymentOrder {
            stripe_id: session.id.clone(),
            account_number: account.number.clone(),
            purchase: match &checkout.purchase {
                AddOnPurchase::Generation => Purchase::Generation {
                    collection: checkout.collection,
                },
                AddOnPurchase::Period { generation, period } => Purchase::Period {
                    generation: generation.clone(),
                    period: *period,
                },
            },
            amount_cents: PRICE_CENTS,
            created_at: now,
        };
        let mut wanted = false;
        let stored = self
            .store
            .accounts
            .update(&account.id, None, now, |profile| {
                let before = profile.billing.checkout.clone();
                wanted = billing::checkout_created(profile, &checkout.order, session.clone());
                let is_new = wanted && profile.billing.checkout != before;
                let order = is_new.then(|| Effect::PaymentOrder(order.clone()));
                Ok::<_, std::convert::Infallible>(order.into_iter().collect())
            });
        match stored.await.map_err(ChargingError::from) {
            Ok(_) if wanted => return Ok(Some(url.parse().map_err(ChargingError::Url)?)),
            Ok(_) | Err(ChargingError::Gone) => {}
            Err(error) => return Err(error.into()),
        }
        // Nobody was told of it, so nobody paid it.
        self.stripe.expire_checkout(&key, &made.id).await?;
        Ok(None)
    }
}

/// What a call under an idempotency key answers, also where several make it at the same time: the provider carries
/// out the first, and refuses the others until it has.
async fn once<T, F>(call: impl Fn() -> F) -> Result<T, PaymentError>
where
    F: Future<Output = Result<T, PaymentError>>,
{
    for pause in [50, 100, 200, 400, 800] {
        match call().await {
            Err(error) if error.is_under_way() => {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            answered => return answered,
        }
    }
    call().await
}
