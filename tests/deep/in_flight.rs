//! The account changes while a payment is in progress: a payment that is owed stands, one that is
//! not is refunded once, and nothing payable is left.

use http::Method;
use jiff::SignedDuration;
use local::stripe::{Card, Delivery};
use serde_json::{Value, json};

use super::pick;
use crate::add_on::{
    DAY, LEASE, ROUTE, bought, customer, deleted, kept, session, status, subscribe,
};
use crate::support::World;
use crate::wire::Fault;

/// The state of a payment when the account changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Its PaymentIntent is being created.
    Creating,
    /// Its PaymentIntent was created, but its id could not be stored.
    CreatedUnstored,
    /// The attempt is at Stripe, which takes its time and then charges.
    Confirming,
    /// The same, but the card is then declined.
    ConfirmingDeclined,
    /// It was charged, and the response was lost.
    ChargedResponseLost,
    /// The attempt never arrived, and its outcome is unknown.
    RequestLost,
    /// It was declined and will be retried.
    Declined,
    /// A Checkout Session for the past-due period is open.
    SessionOpen,
    /// That session was just paid.
    SessionPaid,
    /// The same, but the payment takes days to process.
    SessionProcessing,
    /// The Checkout Session that buys the add-on is open.
    FirstSession,
    FirstSessionPaid,
}

use Moment::{
    ChargedResponseLost, Confirming, ConfirmingDeclined, CreatedUnstored, Creating, Declined,
    FirstSession, FirstSessionPaid, RequestLost, SessionOpen, SessionPaid, SessionProcessing,
};

/// The end state: the add-on's status, the card's, the payments made, and how many are kept.
type End = (&'static str, &'static str, usize, usize);

const GONE: &str = "gone";

impl World {
    async fn plan(&self, plan: &str, version: u64) {
        let detail = json!({"account_id": "acme", "plan": plan, "version": version});
        self.account_event("account.upserted", detail).await;
    }

    async fn upgrade(&self) {
        self.plan("enterprise", 10).await;
    }

    async fn upgrade_and_back(&self) {
        self.plan("enterprise", 10).await;
        self.plan("standard", 11).await;
    }

    async fn cancel(&self) {
        let owner = self.owner("acme");
        self.send(owner.request(Method::DELETE, ROUTE)).await;
    }

    /// Number of attempts to charge a card.
    fn confirmations(&self) -> usize {
        let seen = self.stripe().seen();
        let confirms = seen.iter().filter(|it| it.path.ends_with("/confirm"));
        confirms.count()
    }

    async fn statuses(&self) -> (String, String) {
        let reply = self.owner("acme").get("/v1/integrations/openrouter").await;
        if reply.status == 404 {
            return (GONE.to_owned(), GONE.to_owned());
        }
        let card = reply.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&card["add_on"]["status"]), text(&card["status"]))
    }

    /// The account is past due, and its card would now succeed.
    async fn declined(&self) {
        self.stripe().set_card(&customer(self), Card::DeclinesSoftly);
        self.tick_when_due().await;
        assert_eq!(status(self).await, "past_due");
        self.stripe().set_card(&customer(self), Card::Succeeds);
    }
}

impl Moment {
    fn is_first(self) -> bool {
        matches!(self, FirstSession | FirstSessionPaid)
    }

    /// Stripe sends events about it.
    fn has_events(self) -> bool {
        matches!(
            self,
            Confirming | ChargedResponseLost | SessionPaid | SessionProcessing | FirstSessionPaid
        )
    }

    /// Runs `act` at this moment.
    async fn with(self, delivery: Delivery, act: impl AsyncFn(&World)) -> World {
        let world = if self.is_first() {
            let world = World::start().await;
            world.set("acme", json!({})).await;
            world
        } else {
            bought().await
        };
        let stripe = world.stripe();
        stripe.webhooks.set_delivery(delivery);
        let script = |card| stripe.script(&customer(&world), &[card]);
        let act_while_paused = async |path_end| {
            world.wait_until_due().await;
            stripe.pause_at(path_end);
            let tick = world.tick_in(SignedDuration::ZERO);
            let meanwhile = async {
                stripe.until_paused().await;
                act(&world).await;
                stripe.resume();
            };
            futures_util::future::join(tick, meanwhile).await;
        };
        match self {
            Creating => act_while_paused("/payment_intents").await,
            Confirming => act_while_paused("/confirm").await,
            ConfirmingDeclined => {
                script(Card::DeclinesSoftly);
                act_while_paused("/confirm").await;
            }
            CreatedUnstored => {
                world.wait_until_due().await;
                world.wire.disturb("TransactWriteItems", Fault::NeverArrives, 2);
                world.tick_in(SignedDuration::ZERO).await;
                assert_eq!((stripe.payable().len(), world.confirmations()), (1, 0));
            }
            ChargedResponseLost | RequestLost => {
                script(match self {
                    ChargedResponseLost => Card::TimesOutAfterCharging,
                    _ => Card::TimesOutBeforeCharging,
                });
                assert_eq!(world.tick_when_due().await["unknown"], 1);
            }
            Declined => world.declined().await,
            SessionOpen | SessionPaid | SessionProcessing | FirstSession | FirstSessionPaid => {
                if !self.is_first() {
                    world.declined().await;
                }
                let session_id = session(&world).await;
                match self {
                    SessionPaid | FirstSessionPaid => {
                        drop(stripe.pay(&session_id, Card::Succeeds).unwrap());
                    }
                    SessionProcessing => drop(stripe.pay(&session_id, Card::Processing).unwrap()),
                    _ => {}
                }
            }
        }
        if !matches!(self, Creating | Confirming | ConfirmingDeclined) {
            act(&world).await;
        }
        world
    }

    /// Checks the end state, with Stripe's events delivered promptly and, if there are any, never.
    async fn assert_end(self, act: impl AsyncFn(&World), end: End) {
        let deliveries = [Delivery::Hold, Delivery::Drop];
        let deliveries = &deliveries[..if self.has_events() { 2 } else { 1 }];
        for &delivery in deliveries {
            let at = format!("{self:?}, {delivery:?}");
            let world = Box::pin(self.with(delivery, &act)).await;
            let stripe = world.stripe();
            let confirmations = world.confirmations();
            for event in stripe.webhooks.take_held() {
                stripe.webhooks.deliver(&event).await.unwrap();
            }
            if delivery == Delivery::Hold {
                stripe.webhooks.set_delivery(Delivery::Immediate);
            }
            for step in [LEASE * 2, DAY / 8, DAY * 2, DAY * 7] {
                let report = world.tick_after(step).await;
                assert_eq!(report["errors"], 0, "{at}: {report}");
                for object in stripe.payable() {
                    let found = stripe.object(&object).unwrap();
                    if step > DAY && found["status"] == "processing" {
                        stripe.finish(&object, true).unwrap();
                    }
                }
                stripe.webhooks.until_delivered().await;
            }
            let (add_on, card) = world.statuses().await;
            let payments = stripe.payments();
            let found = (add_on.as_str(), card.as_str(), payments.len(), kept(&world));
            assert_eq!(found, end, "{at}");
            assert!(payments.iter().all(|it| [0, 500].contains(&it.refunded)), "{at}");
            assert_eq!(world.confirmations(), confirmations, "{at}");
            // The id of an unstored PaymentIntent is unknown, but only we could confirm it.
            let left = usize::from(self == CreatedUnstored);
            assert_eq!(stripe.payable().len(), left, "{at}");
            if add_on != "active" && delivery == Delivery::Hold {
                assert_eq!(world.tick_after(DAY * 40).await["charged"], 0, "{at}");
                assert_eq!(stripe.payments().len(), payments.len(), "{at}");
            }
        }
    }
}

/// All moments; in the short form, those of one of the four tests below.
fn share(table: &[(Moment, End)], test: usize) -> impl Iterator<Item = (Moment, End)> {
    table.iter().copied().skip(pick(test, 0)).step_by(pick(4, 1))
}

#[tokio::test]
async fn an_upgrade_refunds_late_payments() {
    let table: [(Moment, End); 12] = [
        (Creating, ("ended", "available", 1, 1)),
        (CreatedUnstored, ("ended", "available", 1, 1)),
        (Confirming, ("ended", "available", 2, 1)),
        (ConfirmingDeclined, ("ended", "available", 1, 1)),
        (ChargedResponseLost, ("ended", "available", 2, 1)),
        (RequestLost, ("ended", "available", 1, 1)),
        (Declined, ("ended", "available", 1, 1)),
        (SessionOpen, ("ended", "available", 1, 1)),
        (SessionPaid, ("ended", "available", 2, 1)),
        (SessionProcessing, ("ended", "available", 2, 1)),
        (FirstSession, ("none", "available", 0, 0)),
        (FirstSessionPaid, ("none", "available", 1, 0)),
    ];
    for (moment, end) in share(&table, 0) {
        moment.assert_end(World::upgrade, end).await;
    }
}

/// The paid add-on is over and does not come back; one that was not bought yet can still be bought.
#[tokio::test]
async fn an_undone_upgrade_still_ends_what_was_due() {
    let table: [(Moment, End); 12] = [
        (Creating, ("ended", "not_enabled", 1, 1)),
        (CreatedUnstored, ("ended", "not_enabled", 1, 1)),
        (Confirming, ("ended", "not_enabled", 2, 1)),
        (ConfirmingDeclined, ("ended", "not_enabled", 1, 1)),
        (ChargedResponseLost, ("ended", "not_enabled", 2, 1)),
        (RequestLost, ("ended", "not_enabled", 1, 1)),
        (Declined, ("ended", "not_enabled", 1, 1)),
        (SessionOpen, ("ended", "not_enabled", 1, 1)),
        (SessionPaid, ("ended", "not_enabled", 2, 1)),
        (SessionProcessing, ("ended", "not_enabled", 2, 1)),
        (FirstSession, ("none", "not_enabled", 0, 0)),
        (FirstSessionPaid, ("cancelling", "available", 1, 1)),
    ];
    for (moment, end) in share(&table, 1) {
        moment.assert_end(World::upgrade_and_back, end).await;
    }
}

#[tokio::test]
async fn a_deletion_refunds_late_payments() {
    let table: [(Moment, End); 12] = [
        (Creating, (GONE, GONE, 1, 1)),
        (CreatedUnstored, (GONE, GONE, 1, 1)),
        (Confirming, (GONE, GONE, 2, 1)),
        (ConfirmingDeclined, (GONE, GONE, 1, 1)),
        (ChargedResponseLost, (GONE, GONE, 2, 1)),
        (RequestLost, (GONE, GONE, 1, 1)),
        (Declined, (GONE, GONE, 1, 1)),
        (SessionOpen, (GONE, GONE, 1, 1)),
        (SessionPaid, (GONE, GONE, 2, 1)),
        (SessionProcessing, (GONE, GONE, 2, 1)),
        (FirstSession, (GONE, GONE, 0, 0)),
        (FirstSessionPaid, (GONE, GONE, 1, 0)),
    ];
    for (moment, end) in share(&table, 2) {
        moment.assert_end(deleted, end).await;
    }
}

/// A payment in progress stands if it succeeds; a past-due one is cancelled.
#[tokio::test]
async fn a_cancellation_keeps_a_payment_in_progress() {
    let table: [(Moment, End); 12] = [
        (Creating, ("ended", "not_enabled", 1, 1)),
        (CreatedUnstored, ("ended", "not_enabled", 1, 1)),
        (Confirming, ("cancelling", "available", 2, 2)),
        (ConfirmingDeclined, ("ended", "not_enabled", 1, 1)),
        (ChargedResponseLost, ("cancelling", "available", 2, 2)),
        (RequestLost, ("ended", "not_enabled", 1, 1)),
        (Declined, ("ended", "not_enabled", 1, 1)),
        (SessionOpen, ("ended", "not_enabled", 1, 1)),
        (SessionPaid, ("ended", "not_enabled", 2, 1)),
        (SessionProcessing, ("ended", "not_enabled", 2, 1)),
        // There is nothing to cancel yet.
        (FirstSession, ("none", "not_enabled", 0, 0)),
        (FirstSessionPaid, ("active", "available", 1, 1)),
    ];
    for (moment, end) in share(&table, 3) {
        moment.assert_end(World::cancel, end).await;
    }
}

/// Nobody is sent to a Checkout Session that was created too late.
#[tokio::test]
async fn a_session_created_too_late_is_expired() {
    let table = [("upgrade", (409, "add_on_not_needed")), ("deletion", (404, "account_not_found"))];
    for (act, refusal) in table {
        let world = World::start().await;
        world.set("acme", json!({})).await;
        let stripe = world.stripe();
        stripe.pause_at("/checkout/sessions");
        let meanwhile = async {
            stripe.until_paused().await;
            match act {
                "upgrade" => world.upgrade().await,
                _ => deleted(&world).await,
            }
            stripe.resume();
        };
        let (reply, ()) = futures_util::future::join(subscribe(&world), meanwhile).await;
        assert_eq!(reply.error(), (refusal.0, refusal.1.to_owned()), "{act}");
        let made = stripe.seen().into_iter();
        let made = made.filter(|it| it.path == "/v1/checkout/sessions");
        assert_eq!((made.count(), stripe.payable()), (1, vec![]), "{act}");
    }
}
