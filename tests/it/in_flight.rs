//! The account changes while a payment is under way: what is owed stands, what is not is given back once,
//! and nothing is left that somebody could still pay.

use http::Method;
use jiff::SignedDuration;
use local::stripe::{Card, Delivery};
use serde_json::{Value, json};

use crate::add_on::{
    DAY, LEASE, ROUTE, bought, customer, deleted, kept, session, status, subscribe,
};
use crate::support::World;
use crate::wire::Fault;

/// Where a payment stands when the account changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Its object is being made.
    Creating,
    /// Its object was made, and whoever made it could not write that down.
    CreatedUnwritten,
    /// The attempt is at the provider, which takes its time and then charges.
    Confirming,
    /// The same, but the card is then declined.
    ConfirmingInVain,
    /// It was charged, and the answer is lost.
    ChargedUnheard,
    /// The attempt never arrived, and nobody knows.
    LostOnTheWay,
    /// It was declined, and is to be tried again.
    Declined,
    /// The user was shown the page on which what is past due can be paid.
    Page,
    /// It was paid there just now.
    PagePaid,
    /// The same, and the money is on its way for some days.
    PageInProcess,
    /// The page on which the add-on is bought is open.
    FirstPage,
    FirstPagePaid,
}

use Moment::{
    ChargedUnheard, Confirming, ConfirmingInVain, CreatedUnwritten, Creating, Declined, FirstPage,
    FirstPagePaid, LostOnTheWay, Page, PageInProcess, PagePaid,
};

/// Where it ends: the add-on's status, the card's, the payments made, and how many of them are kept.
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

    /// Attempts to charge a card so far.
    fn confirmations(&self) -> usize {
        let seen = self.provider().seen();
        let confirms = seen.iter().filter(|it| it.path.ends_with("/confirm"));
        confirms.count()
    }

    async fn standing(&self) -> (String, String) {
        let reply = self.owner("acme").get("/v1/integrations/openrouter").await;
        if reply.status == 404 {
            return (GONE.to_owned(), GONE.to_owned());
        }
        let card = reply.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&card["add_on"]["status"]), text(&card["status"]))
    }

    /// The account is past due, and its card would be charged again.
    async fn declined(&self) {
        self.provider().set_card(&customer(self), Card::DeclinesSoftly);
        self.tick_when_due().await;
        assert_eq!(status(self).await, "past_due");
        self.provider().set_card(&customer(self), Card::Succeeds);
    }
}

impl Moment {
    fn is_first(self) -> bool {
        matches!(self, FirstPage | FirstPagePaid)
    }

    /// There is something that the provider's events tell.
    fn has_news(self) -> bool {
        matches!(self, Confirming | ChargedUnheard | PagePaid | PageInProcess | FirstPagePaid)
    }

    /// Has `act` take place at this moment.
    async fn with(self, delivery: Delivery, act: impl AsyncFn(&World)) -> World {
        let world = if self.is_first() {
            let world = World::start().await;
            world.set("acme", json!({})).await;
            world
        } else {
            bought().await
        };
        let provider = world.provider();
        provider.set_delivery(delivery);
        let script = |card| provider.script(&customer(&world), &[card]);
        let hold_back = async |path_end| {
            world.wait_until_due().await;
            provider.pause_at(path_end);
            let tick = world.tick_in(SignedDuration::ZERO);
            let meanwhile = async {
                provider.until_paused().await;
                act(&world).await;
                provider.resume();
            };
            futures_util::future::join(tick, meanwhile).await;
        };
        match self {
            Creating => hold_back("/payment_intents").await,
            Confirming => hold_back("/confirm").await,
            ConfirmingInVain => {
                script(Card::DeclinesSoftly);
                hold_back("/confirm").await;
            }
            CreatedUnwritten => {
                world.wait_until_due().await;
                world.wire.disturb("TransactWriteItems", Fault::NeverArrives, 2);
                world.tick_in(SignedDuration::ZERO).await;
                assert_eq!((provider.payable().len(), world.confirmations()), (1, 0));
            }
            ChargedUnheard | LostOnTheWay => {
                script(match self {
                    ChargedUnheard => Card::TimesOutAfterCharging,
                    _ => Card::TimesOutBeforeCharging,
                });
                assert_eq!(world.tick_when_due().await["unknown"], 1);
            }
            Declined => world.declined().await,
            Page | PagePaid | PageInProcess | FirstPage | FirstPagePaid => {
                if !self.is_first() {
                    world.declined().await;
                }
                let page = session(&world).await;
                match self {
                    PagePaid | FirstPagePaid => drop(provider.pay(&page, Card::Succeeds).unwrap()),
                    PageInProcess => drop(provider.pay(&page, Card::Processing).unwrap()),
                    _ => {}
                }
            }
        }
        if !matches!(self, Creating | Confirming | ConfirmingInVain) {
            act(&world).await;
        }
        world
    }

    /// What comes of it, whether the provider's events come at once or, where they tell something, never.
    async fn assert_end(self, act: impl AsyncFn(&World), end: End) {
        let deliveries = [Delivery::Hold, Delivery::Drop];
        let deliveries = &deliveries[..if self.has_news() { 2 } else { 1 }];
        for &delivery in deliveries {
            let at = format!("{self:?}, {delivery:?}");
            let world = Box::pin(self.with(delivery, &act)).await;
            let provider = world.provider();
            let confirmations = world.confirmations();
            for event in provider.take_held() {
                provider.deliver(&event).await.unwrap();
            }
            if delivery == Delivery::Hold {
                provider.set_delivery(Delivery::Immediate);
            }
            for step in [LEASE * 2, DAY / 8, DAY * 2, DAY * 7] {
                let report = world.tick_after(step).await;
                assert_eq!(report["errors"], 0, "{at}: {report}");
                for object in provider.payable() {
                    let found = provider.object(&object).unwrap();
                    if step > DAY && found["status"] == "processing" {
                        provider.finish(&object, true).unwrap();
                    }
                }
                provider.until_delivered().await;
            }
            let (add_on, card) = world.standing().await;
            let payments = provider.payments();
            let found = (add_on.as_str(), card.as_str(), payments.len(), kept(&world));
            assert_eq!(found, end, "{at}");
            assert!(payments.iter().all(|it| [0, 500].contains(&it.refunded)), "{at}");
            assert_eq!(world.confirmations(), confirmations, "{at}");
            // The id of an object that nobody wrote down is not known; nobody but us could confirm it.
            let left = usize::from(self == CreatedUnwritten);
            assert_eq!(provider.payable().len(), left, "{at}");
            if add_on != "active" && delivery == Delivery::Hold {
                assert_eq!(world.tick_after(DAY * 40).await["charged"], 0, "{at}");
                assert_eq!(provider.payments().len(), payments.len(), "{at}");
            }
        }
    }
}

#[tokio::test]
async fn an_upgrade_gives_back_what_comes_too_late() {
    let table: [(Moment, End); 12] = [
        (Creating, ("ended", "available", 1, 1)),
        (CreatedUnwritten, ("ended", "available", 1, 1)),
        (Confirming, ("ended", "available", 2, 1)),
        (ConfirmingInVain, ("ended", "available", 1, 1)),
        (ChargedUnheard, ("ended", "available", 2, 1)),
        (LostOnTheWay, ("ended", "available", 1, 1)),
        (Declined, ("ended", "available", 1, 1)),
        (Page, ("ended", "available", 1, 1)),
        (PagePaid, ("ended", "available", 2, 1)),
        (PageInProcess, ("ended", "available", 2, 1)),
        (FirstPage, ("none", "available", 0, 0)),
        (FirstPagePaid, ("none", "available", 1, 0)),
    ];
    for (moment, end) in table {
        moment.assert_end(World::upgrade, end).await;
    }
}

/// What was paid for is over, so that nothing comes back; what was not bought yet can be.
#[tokio::test]
async fn an_upgrade_that_is_taken_back_still_ends_what_was_due() {
    let table: [(Moment, End); 12] = [
        (Creating, ("ended", "not_enabled", 1, 1)),
        (CreatedUnwritten, ("ended", "not_enabled", 1, 1)),
        (Confirming, ("ended", "not_enabled", 2, 1)),
        (ConfirmingInVain, ("ended", "not_enabled", 1, 1)),
        (ChargedUnheard, ("ended", "not_enabled", 2, 1)),
        (LostOnTheWay, ("ended", "not_enabled", 1, 1)),
        (Declined, ("ended", "not_enabled", 1, 1)),
        (Page, ("ended", "not_enabled", 1, 1)),
        (PagePaid, ("ended", "not_enabled", 2, 1)),
        (PageInProcess, ("ended", "not_enabled", 2, 1)),
        (FirstPage, ("none", "not_enabled", 0, 0)),
        (FirstPagePaid, ("cancelling", "available", 1, 1)),
    ];
    for (moment, end) in table {
        moment.assert_end(World::upgrade_and_back, end).await;
    }
}

#[tokio::test]
async fn a_deletion_gives_back_what_comes_too_late() {
    let table: [(Moment, End); 12] = [
        (Creating, (GONE, GONE, 1, 1)),
        (CreatedUnwritten, (GONE, GONE, 1, 1)),
        (Confirming, (GONE, GONE, 2, 1)),
        (ConfirmingInVain, (GONE, GONE, 1, 1)),
        (ChargedUnheard, (GONE, GONE, 2, 1)),
        (LostOnTheWay, (GONE, GONE, 1, 1)),
        (Declined, (GONE, GONE, 1, 1)),
        (Page, (GONE, GONE, 1, 1)),
        (PagePaid, (GONE, GONE, 2, 1)),
        (PageInProcess, (GONE, GONE, 2, 1)),
        (FirstPage, (GONE, GONE, 0, 0)),
        (FirstPagePaid, (GONE, GONE, 1, 0)),
    ];
    for (moment, end) in table {
        moment.assert_end(deleted, end).await;
    }
}

/// One that is under way stands if it succeeds; what was past due is given up.
#[tokio::test]
async fn a_cancellation_keeps_what_was_under_way() {
    let table: [(Moment, End); 12] = [
        (Creating, ("ended", "not_enabled", 1, 1)),
        (CreatedUnwritten, ("ended", "not_enabled", 1, 1)),
        (Confirming, ("cancelling", "available", 2, 2)),
        (ConfirmingInVain, ("ended", "not_enabled", 1, 1)),
        (ChargedUnheard, ("cancelling", "available", 2, 2)),
        (LostOnTheWay, ("ended", "not_enabled", 1, 1)),
        (Declined, ("ended", "not_enabled", 1, 1)),
        (Page, ("ended", "not_enabled", 1, 1)),
        (PagePaid, ("ended", "not_enabled", 2, 1)),
        (PageInProcess, ("ended", "not_enabled", 2, 1)),
        // There is nothing to cancel yet.
        (FirstPage, ("none", "not_enabled", 0, 0)),
        (FirstPagePaid, ("active", "available", 1, 1)),
    ];
    for (moment, end) in table {
        moment.assert_end(World::cancel, end).await;
    }
}

/// Nobody is shown a page that came too late.
#[tokio::test]
async fn a_page_that_is_made_meanwhile_is_closed() {
    let table = [("upgrade", (409, "add_on_not_needed")), ("deletion", (404, "account_not_found"))];
    for (act, refusal) in table {
        let world = World::start().await;
        world.set("acme", json!({})).await;
        let provider = world.provider();
        provider.pause_at("/checkout/sessions");
        let meanwhile = async {
            provider.until_paused().await;
            match act {
                "upgrade" => world.upgrade().await,
                _ => deleted(&world).await,
            }
            provider.resume();
        };
        let (reply, ()) = futures_util::future::join(subscribe(&world), meanwhile).await;
        assert_eq!(reply.error(), (refusal.0, refusal.1.to_owned()), "{act}");
        let made = provider.seen().into_iter();
        let made = made.filter(|it| it.path == "/v1/checkout/sessions");
        assert_eq!((made.count(), provider.payable()), (1, vec![]), "{act}");
    }
}
