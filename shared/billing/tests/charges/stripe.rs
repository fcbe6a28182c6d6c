//! Stripe: PaymentIntents and Checkout Sessions, as far as the protocol depends on them.

use jiff::{SignedDuration, Timestamp};

/// Source: <https://docs.stripe.com/api/checkout/sessions/create>.
const SHORTEST_SESSION: SignedDuration = SignedDuration::from_mins(30);

/// A Stripe object. All PaymentIntents are for the one period that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum StripeRef {
    /// The PaymentIntent created under the key of this number.
    Intent(u8),
    /// The session created for the order of this number.
    Session(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Status {
    RequiresConfirmation,
    RequiresPaymentMethod { hard: bool },
    Processing,
    Succeeded,
    Canceled,
}

/// The decision of the card's bank on an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Verdict {
    Success,
    SoftDecline,
    HardDecline,
    /// Not decided yet.
    Processing,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Intent {
    pub(crate) status: Status,
    /// The first response to each key of a confirmation, by the attempt's number.
    pub(crate) answers: Vec<(u32, Status)>,
    /// The attempts that were declined.
    pub(crate) declined: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    pub(crate) order: u8,
    pub(crate) expires_at: Timestamp,
    pub(crate) is_expired: bool,
    pub(crate) paid_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Stripe {
    /// By number, from 1.
    pub(crate) intents: Vec<Intent>,
    pub(crate) sessions: Vec<Session>,
}

/// The effect of a confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Confirmed {
    pub(crate) answer: Status,
    /// It was an attempt, neither repeated nor too late.
    pub(crate) is_new: bool,
}

impl StripeRef {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Intent(number) => format!("pi_{number}"),
            Self::Session(order) => format!("cs_{order}"),
        }
    }

    pub(crate) fn of(name: &str) -> Self {
        let (kind, number) = name.split_once('_').unwrap();
        let number = number.parse().unwrap();
        match kind {
            "pi" => Self::Intent(number),
            _ => Self::Session(number),
        }
    }
}

impl Status {
    pub(crate) fn is_declined(self) -> bool {
        matches!(self, Self::RequiresPaymentMethod { .. })
    }
}

impl Intent {
    /// Whether it can still move money.
    pub(crate) fn is_payable(&self) -> bool {
        !matches!(self.status, Status::Succeeded | Status::Canceled)
    }

    fn can_be_confirmed(&self) -> bool {
        self.is_payable() && self.status != Status::Processing
    }

    fn answer_to(&self, attempt: u32) -> Option<Status> {
        let mut answers = self.answers.iter();
        answers.find_map(|(known, answer)| (*known == attempt).then_some(*answer))
    }
}

impl Session {
    pub(crate) fn is_open(&self, now: Timestamp) -> bool {
        !self.is_expired && self.paid_at.is_none() && now < self.expires_at
    }
}

impl Stripe {
    pub(crate) fn intent(&self, number: u8) -> &Intent {
        &self.intents[usize::from(number) - 1]
    }

    pub(crate) fn intent_mut(&mut self, number: u8) -> &mut Intent {
        &mut self.intents[usize::from(number) - 1]
    }

    /// Creates the PaymentIntent of this key, unless it exists.
    pub(crate) fn create(&mut self, number: u8) {
        let is_last = |known: usize| known + 1 == usize::from(number);
        for known in self.intents.len()..usize::from(number) {
            // A PaymentIntent that Stripe refused to create cannot be paid.
            let status =
                if is_last(known) { Status::RequiresConfirmation } else { Status::Canceled };
            self.intents.push(Intent { status, answers: Vec::new(), declined: Vec::new() });
        }
    }

    /// Whether a confirmation would make an attempt, on which the bank decides.
    pub(crate) fn would_attempt(&self, number: u8, attempt: u32) -> bool {
        let intent = self.intent(number);
        intent.answer_to(attempt).is_none() && intent.can_be_confirmed()
    }

    pub(crate) fn confirm(&mut self, number: u8, attempt: u32, verdict: Verdict) -> Confirmed {
        let is_new = self.would_attempt(number, attempt);
        let intent = self.intent_mut(number);
        if let Some(answer) = intent.answer_to(attempt) {
            return Confirmed { answer, is_new };
        }
        if is_new {
            intent.status = match verdict {
                Verdict::Success => Status::Succeeded,
                Verdict::SoftDecline => Status::RequiresPaymentMethod { hard: false },
                Verdict::HardDecline => Status::RequiresPaymentMethod { hard: true },
                Verdict::Processing => Status::Processing,
            };
            intent.answers.push((attempt, intent.status));
            if intent.status.is_declined() {
                intent.declined.push(attempt);
            }
        }
        let answer = intent.status;
        Confirmed { answer, is_new }
    }

    /// Cancels it if possible; returns its status afterwards.
    pub(crate) fn cancel(&mut self, number: u8) -> Status {
        let intent = self.intent_mut(number);
        if intent.can_be_confirmed() {
            intent.status = Status::Canceled;
        }
        intent.status
    }

    /// The bank's decision on a processing attempt.
    pub(crate) fn settle(&mut self, number: u8, success: bool) {
        let intent = self.intent_mut(number);
        if success {
            intent.status = Status::Succeeded;
        } else {
            intent.status = Status::RequiresPaymentMethod { hard: false };
            let attempt = intent.answers.last().map(|(attempt, _)| *attempt);
            intent.declined.extend(attempt);
        }
    }

    /// Whether the attempt was declined on any PaymentIntent.
    pub(crate) fn declined(&self, attempt: u32) -> bool {
        let mut intents = self.intents.iter();
        intents.any(|intent| intent.declined.contains(&attempt))
    }

    /// Creates this order's session, unless it exists. False if its end is too near.
    pub(crate) fn open_session(&mut self, order: u8, ends: Timestamp, now: Timestamp) -> bool {
        if self.sessions.iter().any(|known| known.order == order) {
            return true;
        }
        let is_far = ends >= now + SHORTEST_SESSION;
        if is_far {
            self.sessions.push(Session {
                order,
                expires_at: ends,
                is_expired: false,
                paid_at: None,
            });
            self.sessions.sort_unstable_by_key(|session| session.order);
        }
        is_far
    }

    pub(crate) fn session(&self, order: u8) -> &Session {
        let mut sessions = self.sessions.iter();
        sessions.find(|session| session.order == order).unwrap()
    }

    pub(crate) fn session_mut(&mut self, order: u8) -> &mut Session {
        let mut sessions = self.sessions.iter_mut();
        sessions.find(|session| session.order == order).unwrap()
    }

    /// Expires the session unless it is paid.
    pub(crate) fn expire(&mut self, order: u8) -> Session {
        let session = self.session_mut(order);
        session.is_expired |= session.paid_at.is_none();
        *session
    }

    pub(crate) fn succeeded(&self) -> impl Iterator<Item = StripeRef> {
        let intents = (1..).zip(&self.intents);
        let intents = intents.filter(|(_, intent)| intent.status == Status::Succeeded);
        let sessions = self.sessions.iter();
        let paid = sessions.filter(|session| session.paid_at.is_some());
        intents
            .map(|(number, _)| StripeRef::Intent(number))
            .chain(paid.map(|session| StripeRef::Session(session.order)))
    }

    pub(crate) fn declined_ones(&self) -> impl Iterator<Item = StripeRef> {
        let intents = (1..).zip(&self.intents);
        let declined = intents.filter(|(_, intent)| !intent.declined.is_empty());
        declined.map(|(number, _)| StripeRef::Intent(number))
    }

    pub(crate) fn is_processing(&self) -> bool {
        let mut intents = self.intents.iter();
        intents.any(|intent| intent.status == Status::Processing)
    }
}
