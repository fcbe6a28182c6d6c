//! `gretactl key`.

use std::io::{self, BufReader, Read};

use ctl::Exit;
use local::engines::SecretsFault;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::{done, env, history, number, run, run_reading, text, tick};
use crate::support::{KEY, OTHER_KEY, World};

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
    assert_eq!((&card["key"], &card["always_use_key"]), (&Value::Null, &json!(false)));
    let (actor, what) = history(&world, &number(&world, "acme").await).await.remove(0);
    assert_eq!(actor, "operator:anna");
    assert!(what.contains("disconnected: leaked"), "{what}");

    let again = done(&world, "key forget acme --reason=leaked").await;
    assert_eq!(again["disconnected"], false);
    let status = text(&world, "key status acme").await;
    assert!(status.contains("none is connected"), "{status}");

    // What Secrets Manager cannot do now is left to the tick.
    owner.save_key(KEY).await;
    world.engines().fail_secrets(None, SecretsFault::AccessDenied);
    let left = text(&world, "key forget acme --reason=again").await;
    assert!(left.contains("the billing tick does"), "{left}");
    world.engines().heal_secrets();
    assert_eq!(names().await.len(), before);
    tick(&world).await;
    assert_eq!(names().await.len(), before - 1);
}

/// Types yes, but only after something else has happened.
struct AnswersAfter<'a>(&'a dyn Fn());

impl Read for AnswersAfter<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.0)();
        "yes\n".as_bytes().read(buffer)
    }
}

/// Only what was shown is confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_not_shown_is_not_forgotten() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let forget = async |meanwhile: &dyn Fn()| {
        let input = BufReader::new(AnswersAfter(meanwhile));
        let line = "key forget acme --reason=leaked --json";
        run_reading(env(&world), line, Some(input)).await
    };
    let saved = async || assert_eq!(owner.save_key(OTHER_KEY).await.status, 200);
    let refused = forget(&|| block_in_place(|| Handle::current().block_on(saved()))).await;
    assert_eq!(refused.exit, Exit::Failed);
    for part in ["now has another key", "`gretactl key status acme`"] {
        assert!(refused.out.contains(part), "{}", refused.out);
    }
    let last4 = &OTHER_KEY[OTHER_KEY.len() - 4..];
    assert_eq!(owner.card().await["key"]["last4"], last4);
    assert_eq!(owner.test_key().await.status, 200, "its secret still exists");
    let history = history(&world, &number(&world, "acme").await).await;
    assert!(history.iter().all(|(actor, _)| actor != "operator:anna"), "{history:?}");

    // If the key is already gone, forgetting it succeeds.
    let gone = async || assert_eq!(owner.disconnect().await.status, 200);
    let forgotten = forget(&|| block_in_place(|| Handle::current().block_on(gone()))).await;
    assert_eq!(forgotten.exit, Exit::Done, "{}", forgotten.out);
    let forgotten: Value = serde_json::from_str(&forgotten.out).unwrap();
    assert_eq!(forgotten["disconnected"], false);
}
