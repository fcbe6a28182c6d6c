//! Long searches. `cargo test` runs a short form of each, and [`tests/deep/run`](run) more of it.

mod in_flight;
mod interrupted;
mod machine;
mod many_accounts;
mod refused_calls;
mod retries;
mod simulated;
mod upstream_responses;

/// How far the searches go: `DEEP` in the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// Seconds, for every change.
    Short,
    /// `DEEP=bounded`: together at most ten minutes.
    Bounded,
    /// `DEEP=all`: everything.
    All,
}

fn depth() -> Depth {
    edge::Env::process().parse_or("DEEP", Depth::Short, |text| match text {
        "bounded" => Ok(Depth::Bounded),
        "all" => Ok(Depth::All),
        _ => Err("must be bounded or all".to_owned()),
    })
}

/// `short` for the short form, otherwise `long`.
fn pick<T>(short: T, long: T) -> T {
    if depth() == Depth::Short { short } else { long }
}
