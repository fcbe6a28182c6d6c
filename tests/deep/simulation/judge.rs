//! What must hold at the end of a run. Nothing here is computed by the code under test: the
//! calendar, who had to pay and who had access follow from the record alone.

use std::collections::{HashMap, HashSet};

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::record::{Act, Claim, Life, Paid, Record, Stall, What};

/// In US cents.
const PRICE: i64 = 500;
/// The same in micro-credits.
const PRICE_IN_CREDITS: i64 = 50_000_000;
/// Micro-credits per US cent.
const CREDITS_A_CENT: i64 = 100_000;
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
const GRACE: SignedDuration = SignedDuration::from_hours(8 * 24);
/// Grace may end with the attempt on this day.
const LAST_ATTEMPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How much later than its date a tick may come.
const MOST_DELAY: SignedDuration = SignedDuration::from_hours(2);
/// The longest interval at which an unknown outcome is looked up.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(26);

/// All violations, one sentence each.
pub(crate) fn judge(record: &Record) -> Vec<String> {
    let mut problems: Vec<String> = record.left_over.clone();
    let known: HashSet<&str> = record.lives.iter().map(|life| &*life.number).collect();
    let mut payments: HashMap<&str, Vec<&Paid>> = HashMap::new();
    for paid in &record.payments {
        if !known.contains(&*paid.account) {
            problems.push(format!("{} was paid by nobody: {paid:?}", paid.object));
        }
        payments.entry(&*paid.account).or_default().push(paid);
    }
    for life in &record.lives {
        let payments = payments.remove(&*life.number).unwrap_or_default();
        let case = Case::new(record, life, payments);
        let found = case.problems.iter().cloned().chain(case.judge());
        problems.extend(found.map(|problem| format!("{} ({}): {problem}", life.id, life.number)));
    }
    problems
}

/// One account and its payments.
struct Case<'a> {
    record: &'a Record,
    life: &'a Life,
    payments: Vec<&'a Paid>,
    /// The paid periods, without claims that nothing paid.
    periods: Vec<Period<'a>>,
    problems: Vec<String>,
}

/// A period that was paid and not refunded.
struct Period<'a> {
    claim: &'a Claim,
    /// The beginning of its generation.
    anchor: Timestamp,
    start: Timestamp,
    end: Timestamp,
    paid_at: Timestamp,
    decided_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlanState {
    Standard,
    Enterprise,
    Gone,
    /// An act was in progress that could change it.
    Unclear,
}

impl<'a> Case<'a> {
    fn new(record: &'a Record, life: &'a Life, payments: Vec<&'a Paid>) -> Self {
        let mut case = Self { record, life, payments, periods: Vec::new(), problems: Vec::new() };
        for claim in &life.claims {
            match case.period(claim) {
                Ok(period) => case.periods.push(period),
                Err(problem) => case.problems.push(problem),
            }
        }
        case.periods.sort_by_key(|period| period.start);
        case
    }

    /// What paid the claimed period, and when, by Stripe's record or the ledger.
    fn period(&self, claim: &'a Claim) -> Result<Period<'a>, String> {
        let name = format!("period {} of {}", claim.period, claim.generation);
        let (paid_at, decided_at) = self.payment(&claim.paid_by).ok_or_else(|| {
            format!("{name} counts as paid by {}, which paid nothing", claim.paid_by)
        })?;
        let (began, _) = self
            .payment(&claim.generation)
            .ok_or_else(|| format!("nothing paid for the beginning of {name}"))?;
        // Stripe reports whole seconds.
        let is_card = claim.generation.starts_with("cs_");
        let anchor = if is_card { floor(began) } else { began };
        Ok(Period {
            claim,
            anchor,
            start: months_after(anchor, claim.period - 1),
            end: months_after(anchor, claim.period),
            paid_at,
            decided_at,
        })
    }

    /// The payment at Stripe that was not refunded.
    fn payment_of(&self, object: &str) -> Option<&Paid> {
        let mut payments = self.payments.iter().copied();
        payments.find(|paid| paid.object == object && paid.refunded == 0)
    }

    /// When `object` was paid without a refund, and when that was decided.
    fn payment(&self, object: &str) -> Option<(Timestamp, Timestamp)> {
        if let Some(paid) = self.payment_of(object) {
            return (paid.cents == PRICE).then_some((paid.at, paid.decided_at));
        }
        let mut entries = self.life.ledger.iter();
        let entry = entries.find(|entry| entry.id == object && entry.kind == "add_on")?;
        (entry.amount == -PRICE_IN_CREDITS).then_some((entry.at, entry.at))
    }

    fn judge(&self) -> Vec<String> {
        let rules = [
            self.each_payment_pays_one_thing(),
            self.each_period_is_paid_on_time(),
            self.nothing_is_paid_twice(),
            self.kept_payments_were_owed(),
            self.credits_add_up(),
            self.access_matches_payments(),
            self.continuing_add_ons_are_charged(),
            self.life.problems.clone(),
        ];
        rules.into_iter().flatten().collect()
    }

    /// A payment is kept if it pays a period or bought credits; any other is refunded in full.
    fn each_payment_pays_one_thing(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut purchases = Vec::new();
        for paid in &self.payments {
            let object = &paid.object;
            let counted = self.life.claims.iter();
            let counted = counted.filter(|claim| claim.paid_by == *object).count();
            if paid.refunded != 0 && paid.refunded != paid.cents {
                problems.push(format!("{object} was partly refunded"));
            }
            match (paid.cents == PRICE, paid.refunded == 0, counted) {
                (true, true, 1) | (true, false, 0) | (false, false, _) => {}
                (true, true, 0) => problems.push(format!("{object} was kept and pays for nothing")),
                (true, true, _) => problems.push(format!("{object} pays {counted} periods")),
                (true, false, _) => problems.push(format!("{object} was refunded and counts")),
                (false, true, _) => purchases.push(paid.cents * CREDITS_A_CENT),
            }
        }
        let entries = self.life.ledger.iter();
        let bought = entries.filter(|entry| entry.kind == "purchase");
        let mut bought: Vec<i64> = bought.map(|entry| entry.amount).collect();
        bought.sort_unstable();
        purchases.sort_unstable();
        if bought != purchases {
            problems.push(format!("credits bought: {bought:?}, paid for: {purchases:?}"));
        }
        problems
    }

    /// No charge comes before its period or begins after it.
    fn each_period_is_paid_on_time(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for period in &self.periods {
            let claim = period.claim;
            if floor(period.paid_at) < floor(period.start) {
                problems.push(format!("{claim:?} was paid early, at {}", period.paid_at));
            }
            if period.decided_at >= period.end {
                problems.push(format!("{claim:?} was paid late: {}", period.decided_at));
            }
            let order = self
                .payments
                .iter()
                .find(|paid| paid.object == claim.paid_by)
                .and_then(|paid| paid.ordered.as_ref());
            if order.is_some_and(|order| *order != (claim.generation.clone(), claim.period)) {
                problems.push(format!("{claim:?} counts, but was ordered as {order:?}"));
            }
        }
        problems
    }

    /// No two payments cover the same time.
    fn nothing_is_paid_twice(&self) -> Vec<String> {
        let pairs = self.periods.iter().zip(self.periods.iter().skip(1));
        let overlaps = pairs.filter(|(one, next)| one.end > next.start);
        let problems = overlaps
            .map(|(one, next)| format!("{:?} and {:?} are both paid", one.claim, next.claim));
        problems.collect()
    }

    /// No payment is kept that was decided for an enterprise or deleted account, or after a
    /// cancellation.
    fn kept_payments_were_owed(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for period in &self.periods {
            let (claim, at) = (period.claim, period.decided_at);
            let plan_state = self.life.plan_state(at);
            let is_owed = match plan_state {
                PlanState::Standard | PlanState::Unclear => true,
                PlanState::Enterprise => self.was_wanted_again(period),
                PlanState::Gone => false,
            };
            if !is_owed {
                problems.push(format!("{claim:?} was paid at {at}, when {plan_state:?}"));
            }
            let by_the_user = claim.paid_by.starts_with("cs_") || claim.period == 1;
            if let Some(cancelled) = self.life.cancelled(at).filter(|_| !by_the_user) {
                problems.push(format!(
                    "{claim:?} was begun at {at}, cancelled at {:?}",
                    cancelled.over
                ));
            }
        }
        problems
    }

    /// The user paid in a Checkout Session, and the account was standard again before the payment
    /// was applied.
    fn was_wanted_again(&self, period: &Period<'_>) -> bool {
        let later =
            |act: &&Act| matches!(act.what, What::Standard(_)) && act.began > period.decided_at;
        let again = self.life.acts.iter().find(later);
        period.claim.paid_by.starts_with("cs_")
            && again.is_some_and(|again| !self.is_known(period, again.began))
    }

    fn credits_add_up(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut expected = self.life.granted;
        for entry in &self.life.ledger {
            expected += match &*entry.kind {
                "purchase" => entry.amount,
                "add_on" => -PRICE_IN_CREDITS,
                _ => 0,
            };
            let claims = self.life.claims.iter();
            let claims = claims.filter(|claim| claim.paid_by == entry.id).count();
            if entry.kind == "add_on" && claims != 1 {
                problems.push(format!("{} pays {claims} periods", entry.id));
            }
        }
        if expected != self.life.balance && !self.life.is_gone() {
            let balance = self.life.balance;
            problems.push(format!("{balance} micro-credits instead of {expected}"));
        }
        problems
    }

    fn access_matches_payments(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for seen in &self.life.seen {
            let at = seen.at;
            let is_last = at == self.record.ended_at;
            let plan_state = self.life.plan_state(at);
            let paid = self.periods.iter();
            let mut paid = paid.filter(|period| (period.start..period.end).contains(&at));
            let due = match plan_state {
                PlanState::Unclear => continue,
                PlanState::Enterprise => true,
                PlanState::Gone => false,
                PlanState::Standard if seen.entitled => {
                    paid.next().is_some() || (!is_last && self.may_be_in_grace(at))
                }
                PlanState::Standard => {
                    paid.any(|period| is_last || self.is_known(period, at))
                        || (!is_last && self.must_be_in_grace(at))
                }
            };
            if due != seen.entitled {
                let access = if due { "no access" } else { "access" };
                problems.push(format!("{access} at {at}, when {plan_state:?}"));
            }
        }
        problems
    }

    /// Unpaid but not cancelled.
    fn may_be_in_grace(&self, at: Timestamp) -> bool {
        let mut ended = self.periods.iter().map(|period| period.end);
        ended.any(|end| (end..end + GRACE).contains(&at)) && self.life.cancelled(at).is_none()
    }

    fn must_be_in_grace(&self, at: Timestamp) -> bool {
        let mut periods = self.periods.iter();
        let is_in_grace = |period: &Period<'_>| {
            (period.end..period.end + LAST_ATTEMPT).contains(&at) && self.is_known(period, at)
        };
        periods.any(|period| is_in_grace(period) && self.life.continues(period.anchor, at))
    }

    /// By `at` the payment must be known: it was looked up often enough, and the job that took it
    /// from the credits is not stalled.
    fn is_known(&self, period: &Period<'_>, at: Timestamp) -> bool {
        let is_from_credits = self.payment_of(&period.claim.paid_by).is_none();
        let made_it = |stall: &Stall| {
            // An entry is dated by the start of its job, or by the tick that led to it.
            (stall.began - MOST_DELAY..stall.began + HOUR).contains(&period.paid_at)
        };
        let stands_still = |stall: &Stall| made_it(stall) && at < stall.woke;
        if is_from_credits && self.record.stalls.iter().any(stands_still) {
            return false;
        }
        let ticks = &self.record.ticks;
        let first = ticks.iter().find(|tick| **tick > period.paid_at);
        first.is_some_and(|first| {
            let mut later = ticks.iter().filter(|tick| **tick < at);
            later.any(|tick| *tick > *first + LONGEST_WAIT)
        })
    }

    /// While all cards succeed, no continuing add-on is left unpaid.
    fn continuing_add_ons_are_charged(&self) -> Vec<String> {
        let record = self.record;
        let window = record.quiet_since + DAY..record.ended_at - DAY;
        let ended = self.periods.iter().filter(|period| {
            let follows = |other: &Period<'_>| (other.start..other.end).contains(&period.end);
            window.contains(&period.end) && !self.periods.iter().any(follows)
        });
        let is_standard = self.life.plan_state(record.ended_at) == PlanState::Standard;
        let continues = |period: &&Period<'_>| self.life.continues(period.anchor, period.end);
        let missed = ended.filter(|period| is_standard && continues(period));
        let problems = missed.map(|period| format!("nothing was charged after {:?}", period.claim));
        problems.collect()
    }
}

impl Life {
    fn is_gone(&self) -> bool {
        let deleted = |act: &Act| matches!(act.what, What::Delete(_)) && act.is_done();
        self.acts.iter().any(deleted)
    }

    fn plan_state(&self, at: Timestamp) -> PlanState {
        let mut certain = (0, PlanState::Unclear);
        let mut unclear = 0;
        for act in &self.acts {
            let (version, plan_state) = match act.what {
                What::Enterprise(version) => (version, PlanState::Enterprise),
                What::Standard(version) => (version, PlanState::Standard),
                What::Delete(version) => (version, PlanState::Gone),
                What::Subscribe | What::Resume | What::Cancel => continue,
            };
            if act.is_over(at) {
                certain = certain.max_by_version((version, plan_state));
            } else if act.began <= at {
                unclear = unclear.max(version);
            }
        }
        if unclear > certain.0 { PlanState::Unclear } else { certain.1 }
    }

    /// The cancellation that was certainly in force at `at`.
    fn cancelled(&self, at: Timestamp) -> Option<&Act> {
        let cancels = self
            .acts
            .iter()
            .filter(|act| act.what == What::Cancel && act.is_done() && act.is_over(at));
        let last = cancels.max_by_key(|act| act.began)?;
        let resumes = |act: &Act| {
            let may_be_it = matches!(act.what, What::Subscribe | What::Resume);
            may_be_it && act.began <= at && !act.is_over(last.began)
        };
        Some(last).filter(|_| !self.acts.iter().any(resumes))
    }

    /// Nothing since `since` ended the add-on, or it was resumed.
    fn continues(&self, since: Timestamp, at: Timestamp) -> bool {
        let ends = |act: &&Act| {
            let may_end = !matches!(act.what, What::Subscribe | What::Resume);
            may_end && !act.is_refused() && !act.is_over(since) && act.began <= at
        };
        // The first act creates the account.
        let ended = self.acts.iter().skip(1).filter(ends);
        let ended = ended.map(|act| act.over.unwrap_or(Timestamp::MAX)).max();
        let resumed =
            |act: &Act| act.what == What::Resume && Some(act.began) > ended && act.is_over(at);
        ended.is_none() || self.acts.iter().any(resumed)
    }
}

trait ByVersion {
    fn max_by_version(self, other: Self) -> Self;
}

impl ByVersion for (u64, PlanState) {
    fn max_by_version(self, other: Self) -> Self {
        if other.0 > self.0 { other } else { self }
    }
}

fn floor(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// The same time of day `months` later, or on the month's last day if it is shorter.
fn months_after(anchor: Timestamp, months: i64) -> Timestamp {
    let time = anchor.to_zoned(TimeZone::UTC).datetime();
    let month = i64::from(time.year()) * 12 + i64::from(time.month()) - 1 + months;
    let (year, month) = (month / 12, month % 12 + 1);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let day = time.day().min(days);
    let date = Date::new(i16::try_from(year).unwrap(), i8::try_from(month).unwrap(), day);
    let moved = DateTime::from_parts(date.unwrap(), time.time());
    moved.to_zoned(TimeZone::UTC).unwrap().timestamp()
}
