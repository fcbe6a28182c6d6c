//! Years of many accounts, with all that goes wrong in them: 5,000 account-months.

use crate::simulation::{Plan, judge, run};

async fn nothing_is_violated(plan: Plan) {
    let ran = Box::pin(run(plan)).await;
    let problems = judge(&ran.record);
    assert!(problems.is_empty(), "{plan:?}: {problems:#?}");
}

#[tokio::test]
async fn cards() {
    let plan = Plan {
        seed: 1,
        accounts: 30,
        months: 5,
        by_credits: 0,
    };
    nothing_is_violated(plan).await;
}
