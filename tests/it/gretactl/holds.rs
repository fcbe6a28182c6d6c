//! `gretactl holds`.

use ctl::Exit;
use serde_json::json;

use super::{HOUR, done, failed, history, hold, number, run, text};
use crate::support::World;

#[tokio::test]
async fn an_operator_resolves_a_hold_once() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let none = text(&world, "holds list acme").await;
    assert!(none.contains("no open holds"), "{none}");
    for (call, hours) in [("call_1", 3), ("call_2", 2), ("call_3", 0)] {
        hold(&world, "acme", call, HOUR * hours).await;
    }
    let listed = done(&world, "holds list acme").await;
    let calls: Vec<_> = listed["holds"].as_array().unwrap().iter().collect();
    assert_eq!(
        calls.iter().map(|hold| hold["call_id"].as_str().unwrap()).collect::<Vec<_>>(),
        ["call_1", "call_2", "call_3"]
    );
    assert_eq!((&calls[0]["amount"], &calls[0]["model"]), (&json!("0.001"), &json!("some/model")));
    let listed = text(&world, "holds list acme").await;
    assert!(listed.contains("call_2  0.001"), "{listed}");

    let above = failed(&world, "holds resolve acme call_1 --charge 0.0011 --reason=r").await;
    assert!(above.contains("more than the 0.001 that are held"), "{above}");
    let asked = run(&world, "holds resolve acme call_3 --release --reason=r", Some("")).await;
    assert_eq!(asked.exit, Exit::Usage);
    assert!(asked.err.contains("may still be running"), "{}", asked.err);
    let asked = run(&world, "holds resolve acme call_1 --release --reason=r", Some("")).await;
    assert!(!asked.err.contains("may still be running"), "{}", asked.err);

    let charged = done(&world, "holds resolve acme call_1 --charge 0.0004 --reason=invoice").await;
    assert_eq!((&charged["held"], &charged["charged"]), (&json!("0.001"), &json!("0.0004")));
    let released = text(&world, "holds resolve acme call_2 --release --reason=outage").await;
    assert!(released.starts_with("released"), "{released}");
    for end in ["--release", "--charge 0.0004"] {
        let line = format!("holds resolve acme call_1 {end} --reason=r");
        let again = failed(&world, &line).await;
        assert!(again.contains("was charged with 0.0004 on"), "{again}");
        assert!(again.contains("by operator:anna"), "{again}");
        let again = failed(&world, &line.replace("call_1", "call_2")).await;
        assert!(again.contains("was released on"), "{again}");
    }
    let unknown = failed(&world, "holds resolve acme call_9 --release --reason=r").await;
    assert!(unknown.contains("no hold of call call_9"), "{unknown}");
    done(&world, "holds resolve acme call_3 --release --reason=r").await;

    assert_eq!(world.settled_balance("acme").await, "6.9996");
    let ledger = done(&world, "credits history acme --limit 1").await;
    let entry = &ledger["entries"][0];
    assert_eq!((&entry["call_id"], &entry["actor"]), (&json!("call_1"), &json!("operator:anna")));
    let anna = |what: &str| ("operator:anna".to_owned(), what.to_owned());
    assert_eq!(
        history(&world, &number(&world, "acme").await).await[..3],
        [
            anna("hold of call call_3 released: r"),
            anna("hold of call call_2 released: outage"),
            anna("hold of call call_1 charged with 0.0004: invoice"),
        ]
    );
}
