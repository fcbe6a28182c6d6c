//! Simulates many accounts over years, in release mode: `--seeds FROM..TO --accounts N --months N`.
//! Prints counts and every violation, and fails if there is one.
//!
//! `cargo bench --package tests --bench simulation --profile simulation -- --seeds 1..9`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement that cannot go on stops with a message"
)]

use std::time::Instant;

#[path = "../deep/simulation/mod.rs"]
#[allow(dead_code, unused_imports, reason = "its two users need a part of it each")]
mod simulation;

use simulation::{Counts, Plan, judge, run};

/// Percentages by the seed's last two bits: all by card, half with credits, all ways, all by
/// Stripe's subscriptions.
const BY_CREDITS: [u32; 4] = [0, 50, 30, 0];
const BY_STRIPE: [u32; 4] = [0, 0, 40, 100];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo test --all-targets` builds this and asks it for its tests: it has none.
    if arguments.iter().any(|it| it == "--test" || it == "--list") {
        return;
    }
    let named = |name: &str| {
        let place = arguments.iter().position(|it| it == name)?;
        arguments.get(place + 1).cloned()
    };
    let number = |name: &str, default: &str| -> u64 {
        let given = named(name).unwrap_or_else(|| default.to_owned());
        given.parse().expect("a whole number")
    };
    let seeds = named("--seeds").unwrap_or_else(|| "1..2".to_owned());
    let (from, to) = seeds.split_once("..").expect("FROM..TO");
    let seeds = from.parse::<u64>().unwrap()..to.parse::<u64>().unwrap();
    let accounts = usize::try_from(number("--accounts", "200")).unwrap();
    let months = u32::try_from(number("--months", "36")).unwrap();
    let began = Instant::now();
    let (mut total, mut violations) = (Counts::default(), 0);
    for seed in seeds {
        let place = usize::try_from(seed % 4).unwrap();
        let plan = Plan {
            seed,
            accounts,
            months,
            by_credits: BY_CREDITS[place],
            by_stripe: BY_STRIPE[place],
        };
        let began = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let finished = runtime.unwrap().block_on(Box::pin(run(plan)));
        let problems = judge(&finished.record);
        for problem in &problems {
            println!("seed {seed}: {problem}");
        }
        print!("{}", finished.record.about(&problems));
        let seconds = began.elapsed().as_secs();
        println!("seed {seed}: {} violations in {seconds} s: {}", problems.len(), finished.counts);
        total.add(&finished.counts);
        violations += problems.len();
    }
    let seconds = began.elapsed().as_secs();
    println!("in all: {violations} violations in {seconds} s: {total}");
    assert_eq!(violations, 0);
}
