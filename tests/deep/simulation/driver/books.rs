//! The record at the end of a run.

use std::collections::HashMap;

use account::AccountId;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;

use super::{HOUR, Simulation};
use crate::simulation::record::{Claim, Entry, Life, Paid, Record};

impl Simulation {
    pub(super) async fn record(&mut self) -> Record {
        let ended_at = self.now();
        let mut lives = std::mem::take(&mut self.lives);
        for life in &mut lives {
            if let Some(seen) = life.seen.last_mut().filter(|_| true) {
                // The last observation, if the account still exists.
                if ended_at.duration_since(seen.at) < HOUR {
                    seen.at = ended_at;
                }
            }
            self.books(life, ended_at).await;
        }
        let payments = self.payments();
        self.counts.payments = payments.len();
        let refunded = payments.iter().filter(|paid| paid.refunded > 0);
        self.counts.refunds = refunded.count();
        let entries = lives.iter().flat_map(|life| &life.ledger);
        let by_credits = entries.filter(|entry| entry.kind == "add_on");
        self.counts.credit_payments = by_credits.count();
        let by_stripe = payments.iter().filter(|it| it.object.starts_with("in_"));
        self.counts.stripe_payments = by_stripe.count();
        Record {
            lives,
            payments,
            ticks: std::mem::take(&mut self.ticks),
            stalls: std::mem::take(&mut self.stalls),
            quiet_since: self.quiet_since.unwrap(),
            ended_at,
            left_over: self.left_over(ended_at).await,
        }
    }

    /// What the books say about an account.
    async fn books(&self, life: &mut Life, now: Timestamp) {
        let id = AccountId::new(life.id.clone()).unwrap();
        for row in self.rows(&self.system.tables.charges, &life.number).await {
            let text = |name: &str| row.get(name).and_then(|value| value.as_s().ok());
            let (Some(charge), Some(paid_by)) = (text("charge"), text("paid_by")) else {
                continue;
            };
            let (generation, period) = charge.rsplit_once('#').unwrap();
            life.claims.push(Claim {
                generation: generation.to_owned(),
                period: period.parse().unwrap(),
                paid_by: paid_by.clone(),
            });
        }
        for row in self.rows(&self.system.tables.ledger, &life.number).await {
            let text = |name: &str| row.get(name).and_then(|value| value.as_s().ok());
            if !text("entry").is_some_and(|entry| entry.starts_with("e#")) {
                continue;
            }
            let amount = row["amount"].as_n().unwrap();
            life.ledger.push(Entry {
                id: text("id").unwrap().clone(),
                kind: text("kind").unwrap().clone(),
                at: text("at").unwrap().parse().unwrap(),
                amount: amount.parse().unwrap(),
            });
        }
        let account = self.store.accounts.get(&id).await.unwrap();
        let Some(account) = account.filter(|account| account.number.as_str() == life.number) else {
            return;
        };
        life.balance = account.balance.balance().micros();
        let books = self.store.books.reconcile(&id, &account.number, now);
        life.problems.extend(books.await.unwrap().problems);
        if let Some(due) = billing::due_at(&account.profile)
            && due < now - HOUR
        {
            life.problems.push(format!("it is due since {due}"));
        }
    }

    /// All rows of the account in a table.
    async fn rows(&self, table: &str, number: &str) -> Vec<HashMap<String, AttributeValue>> {
        let pages = self
            .system
            .engines
            .dynamodb()
            .query()
            .table_name(table)
            .key_condition_expression("account_number = :number")
            .expression_attribute_values(":number", AttributeValue::S(number.to_owned()))
            .into_paginator()
            .items()
            .send();
        pages.collect::<Result<Vec<_>, _>>().await.unwrap()
    }

    /// Stripe's own record.
    fn payments(&self) -> Vec<Paid> {
        let confirmed = self.confirmed.lock().unwrap();
        let stripe = self.stripe();
        let paid = stripe.payments().into_iter().map(|payment| {
            let customer = payment.customer.as_deref().unwrap_or_default();
            let customer = stripe.object(customer).unwrap_or_default();
            let metadata = |name: &str| payment.metadata.get(name).cloned();
            let period = metadata("period").and_then(|period| period.parse().ok());
            Paid {
                account: customer["metadata"]["account"].as_str().unwrap_or_default().to_owned(),
                object: payment
                    .session
                    .or(payment.invoice)
                    .unwrap_or_else(|| payment.intent.clone()),
                cents: payment.amount,
                refunded: payment.refunded,
                at: payment.at,
                decided_at: confirmed.get(&payment.intent).copied().unwrap_or(payment.at),
                ordered: metadata("generation").zip(period),
            }
        });
        paid.collect()
    }

    /// Work that is still due.
    async fn left_over(&self, now: Timestamp) -> Vec<String> {
        let (store, before) = (&self.system.store, now - HOUR);
        let mut left = Vec::new();
        for shard in store::shards() {
            let accounts =
                store.due.find(store::DueKind::Billing, shard, before, 100).await.unwrap();
            left.extend(accounts.iter().map(|it| format!("{it:?}")));
            let refunds = store.due.find(store::DueKind::Refund, shard, before, 100).await.unwrap();
            left.extend(refunds.iter().map(|it| format!("{it:?}")));
            let cleanups =
                store.due.find(store::DueKind::Cleanup, shard, before, 100).await.unwrap();
            left.extend(cleanups.iter().map(|it| format!("{it:?}")));
            let events =
                store.due.find(store::DueKind::StripeEvent, shard, before, 100).await.unwrap();
            left.extend(events.iter().map(|it| format!("{it:?}")));
        }
        left
    }
}
