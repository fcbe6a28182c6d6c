//! The memory cost of open streams.

use std::fmt::Write as _;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::client::{Connection, Target};
use crate::process::resident_kb;
use crate::targets::{Aim, Unit};
use crate::world::{World, body, max_concurrency};
use crate::{Error, Options, Section, upstream};

const OPEN: [usize; 3] = [1, 50, 500];
/// Number of streams opened at once. Opening all of them at once would itself take memory.
const OPENING: usize = 32;

pub(crate) async fn measure(world: &World, _: &Options) -> Result<Section, Error> {
    let mut text = String::from(
        "\n## Memory of open streams\n\n| | streams | before, kB | while open, kB | a stream, kB |\n|---|--:|--:|--:|--:|\n",
    );
    let (mut json, mut aims) = (Vec::new(), Vec::new());
    let mut settings = world.system.settings.clone();
    // Holds stay open when their process ends.
    settings.push(("MAX_CONCURRENT_HOLDS".to_owned(), "1000".to_owned()));
    settings.push(max_concurrency(500));
    world.pin(false, &[])?;
    let callers = [
        ("own key", &world.with_key, "memory of a stream by one's own key, 500 open"),
        ("credits", &world.on_credits, "memory of a stream on credits, 500 open"),
    ];
    for (payer, token, what) in callers {
        for open in OPEN {
            eprintln!("memory, {payer}, {open} streams");
            // Each in its own process, because a process may keep memory that it no longer needs.
            let (process, port) = world.play("proxy", &settings).await?;
            let target =
                Target { name: "", port, path: "/v1/chat/completions", token: token.clone() };
            let mut first = Connection::to(&target).await?;
            for _ in 0..20 {
                first.call(&body(upstream::MODEL, true)).await?;
            }
            let before = resident_kb(process.id())?;
            let held = body(upstream::HELD_MODEL, true);
            let streams = (0..open).map(|_| async {
                let mut connection = Connection::to(&target).await?;
                let mut answer = connection.send(&held).await?;
                answer.frame().await.ok_or("a stream without a chunk")??;
                Ok::<_, Error>((connection, answer))
            });
            let streams = stream::iter(streams).buffered(OPENING);
            let streams: Vec<_> = streams.try_collect().await?;
            let after = resident_kb(process.id())?;
            drop(streams);
            let count = u64::try_from(open)?;
            let each = after.saturating_sub(before) / count;
            let _ = writeln!(text, "| {payer} | {open} | {before} | {after} | {each} |");
            json.push(json!({
                "payer": payer,
                "streams": open,
                "before_kb": before,
                "open_kb": after,
            }));
            if open == 500 {
                aims.push(Aim {
                    what,
                    unit: Unit::Kilobytes,
                    own: i64::try_from(each)?,
                    of: 64,
                    at_most: 1_000,
                });
                aims.push(Aim {
                    what: "memory without streams",
                    unit: Unit::Kilobytes,
                    own: i64::try_from(before)?,
                    of: 20_000,
                    at_most: 1_000,
                });
            }
        }
    }
    Ok(Section { text, json: Value::Array(json), aims })
}
