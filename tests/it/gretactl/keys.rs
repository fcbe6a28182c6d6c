//! `gretactl key`.

use ctl::Exit;
use local::engines::SecretsFault;
use serde_json::{Value, json};

use super::{done, history, number, run, text, tick};
use crate::support::{KEY, World};

#[tokio::test]
async fn a_key_is_forgotten_and_never_shown() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    owner.switch(json!({"always_use_key": true})).await;
    let names = || async { world.engines().secret_names().await };
    let before = names().await.len();

    let status = done(&world, "key status acme").await;
    let last4 = &KEY[KEY.len() - 4..];
    assert_eq!(status["key"]["last4"], last4);
    assert_eq!(
        (&status["key"]["state"], &status["always_use_key"]),
        (&json!("usable"), &json!(true))
    );
    for line in ["key status acme", "account show acme"] {
        let shown = text(&world, line).await;
        for part in ["usable", "always use", "sk-or-v1-", last4] {
            assert!(shown.contains(part), "no {part} in {shown}");
        }
    }

    let asked = run(&world, "key forget acme --reason=leaked", Some("no\n")).await;
    assert_eq!((asked.exit, names().await.len()), (Exit::Usage, before));
    let forgotten = done(&world, "key forget acme --reason=leaked").await;
    assert_eq!(
        (&forgotten["disconnected"], &forgotten["secret_deleted"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(names().await.len(), before - 1);
    let card = owner.card().await;
    assert_eq!(
        (&card["key"], &card["always_use_key"]),
        (&Value::Null, &json!(false))
    );
    let (actor, what) = history(&world, &number(&world, "acme").await)
        .await
        .remove(0);
    assert_eq!(actor, "operator:anna");
    assert!(what.contains("disconnected: leaked"), "{what}");

    let again = done(&world, "key forget acme --reason=leaked").await;
    assert_eq!(again["disconnected"], false);
    let status = text(&world, "key status acme").await;
    assert!(status.contains("none is connected"), "{status}");

    // What Secrets Manager does not do now, the tick does.
    owner.save_key(KEY).await;
    world
        .engines()
        .fail_secrets(None, SecretsFault::AccessDenied);
    let left = text(&world, "key forget acme --reason=again").await;
    assert!(left.contains("the billing tick does"), "{left}");
    world.engines().heal_secrets();
    assert_eq!(names().await.len(), before);
    tick(&world).await;
    assert_eq!(names().await.len(), before - 1);
}
