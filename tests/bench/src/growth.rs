//! Growth of the time that `ai-proxy` adds, by the number of accounts and the length of a body.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Instant;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue::{self, S};
use aws_sdk_dynamodb::types::{PutRequest, WriteRequest};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::client::{Connection, Target};
use crate::measured::{Measured, added};
use crate::process::{Process, resident_kb};
use crate::stats::{Sample, micros};
use crate::system::BYOK;
use crate::world::{DYNAMODB, World, body, body_of};
use crate::{Error, Options, Section, gateway, nanos_since, upstream};

const ACCOUNTS: [u32; 4] = [10, 1_000, 100_000, 1_000_000];
/// The content of the caller's message, in bytes.
const CONTENTS: [usize; 4] = [100, 10_000, 100_000, 1_000_000];

type Item = HashMap<String, AttributeValue>;

pub(crate) async fn measure(world: &World, options: &Options) -> Result<Section, Error> {
    let settings = &world.system.settings;
    let (relay, relay_port) = world.play("relay", settings).await?;
    let (proxy, proxy_port) = world.play("proxy", settings).await?;
    world.pin(true, &[&relay, &proxy])?;
    let target = |name, port, path| Target { name, port, path, token: world.with_key.clone() };
    let own = target("ai-proxy, own key", proxy_port, "/v1/chat/completions");
    let targets = [
        target("direct", world.upstream_port, "/chat/completions"),
        target("bare relay", relay_port, "/chat/completions"),
        own.clone(),
    ];
    // Bodies come last: a process may keep the memory that long bodies took.
    let (accounts, accounts_json) = with_accounts(world, &proxy, &own, options).await?;
    let (bodies, bodies_json) = with_bodies(&targets, options).await?;
    Ok(Section {
        text: accounts + &bodies,
        json: json!({"bodies": bodies_json, "accounts": accounts_json}),
        aims: Vec::new(),
    })
}

/// Direct, through the relay, and through `ai-proxy` with an own key: the table, and the numbers.
async fn with_bodies(
    targets: &[Target; 3],
    options: &Options,
) -> Result<(String, Vec<Value>), Error> {
    let mut text = String::from(
        "\n## Growth with bodies, plain, 1 connection\n\n| content, bytes | direct: p50 | bare relay: added p50 | own \
         key: added p50 |\n|--:|--:|--:|--:|\n",
    );
    let mut rows = Vec::new();
    for content in CONTENTS {
        eprintln!("growth, {content} bytes");
        let body = body_of(upstream::MODEL, false, &"w".repeat(content));
        let mut p50 = [Sample::new(), Sample::new(), Sample::new()];
        for round in 0..=options.rounds {
            for (target, sample) in targets.iter().zip(&mut p50) {
                let value = calls(target, &body, options.calls / 10).await?.p50();
                if round > 0 {
                    sample.push(value);
                }
            }
        }
        let [direct, relay, own] = p50.map(|sample| sample.p50());
        let (relay, own) = (added(relay, direct), added(own, direct));
        let (shown, relay_shown, own_shown) = (micros(direct), micros(relay), micros(own));
        let _ = writeln!(text, "| {content} | {shown} | {relay_shown} | {own_shown} |");
        rows.push(json!({
            "content_bytes": content,
            "direct_ns": direct,
            "relay_added_ns": relay,
            "own_added_ns": own,
        }));
    }
    Ok((text, rows))
}

async fn with_accounts(
    world: &World,
    proxy: &Process,
    own: &Target,
    options: &Options,
) -> Result<(String, Vec<Value>), Error> {
    let mut text = String::from(
        "\n## Growth with accounts\n\n| accounts | own key: p50 | p99 | one read: p50 | memory of `ai-proxy`, kB \
         |\n|--:|--:|--:|--:|--:|\n",
    );
    let mut rows = Vec::new();
    let dynamodb = Client::new(&world.system.aws(DYNAMODB).await?);
    let template = template(world, &dynamodb).await?;
    let body = body(upstream::MODEL, false);
    let mut there = 0;
    for count in ACCOUNTS {
        eprintln!("growth, {count} accounts");
        world.pin(false, &[proxy])?;
        fill(world, &dynamodb, &template, there..count).await?;
        there = count;
        world.pin(true, &[proxy])?;
        calls(own, &body, options.calls / 10).await?;
        let called = calls(own, &body, options.calls).await?;
        let mut read = Measured::default();
        gateway::read_account(world, options.calls, &mut read).await?;
        let (p50, p99, read) = (called.p50(), called.p99(), read.end.p50());
        let memory = resident_kb(proxy.id())?;
        let (shown, shown99, read_shown) = (micros(p50), micros(p99), micros(read));
        let _ = writeln!(text, "| {count} | {shown} | {shown99} | {read_shown} | {memory} |");
        rows.push(json!({
            "accounts": count,
            "own_p50_ns": p50,
            "own_p99_ns": p99,
            "read_p50_ns": read,
            "memory_kb": memory,
        }));
    }
    Ok((text, rows))
}

async fn calls(target: &Target, body: &Bytes, calls: usize) -> Result<Sample, Error> {
    let mut connection = Connection::to(target).await?;
    let mut sample = Sample::new();
    for _ in 0..calls {
        let started = Instant::now();
        connection.call(body).await?;
        sample.push(nanos_since(started));
    }
    Ok(sample)
}

/// An account as stored.
async fn template(world: &World, dynamodb: &Client) -> Result<Item, Error> {
    let key = [("account_id", BYOK), ("item", "account")];
    let key = key.map(|(name, value)| (name.to_owned(), S(value.to_owned())));
    let read = dynamodb
        .get_item()
        .table_name(world.system.setting("ACCOUNTS_TABLE")?)
        .set_key(Some(key.into()));
    Ok(read.send().await?.item.ok_or("there is no such account")?)
}

/// Stores copies of an account.
async fn fill(
    world: &World,
    dynamodb: &Client,
    template: &Item,
    numbers: std::ops::Range<u32>,
) -> Result<(), Error> {
    let table = world.system.setting("ACCOUNTS_TABLE")?;
    let numbers: Vec<u32> = numbers.collect();
    for numbers in numbers.chunks(25) {
        let copies = numbers.iter().map(|number| {
            let mut item = template.clone();
            for (name, value) in [("account_id", "copy"), ("account_number", "number")] {
                item.insert(name.to_owned(), S(format!("{value}-{number}")));
            }
            let put = PutRequest::builder().set_item(Some(item)).build()?;
            Ok(WriteRequest::builder().put_request(put).build())
        });
        let copies = copies.collect::<Result<_, Error>>()?;
        let write = dynamodb.batch_write_item().request_items(table, copies);
        write.send().await?;
    }
    Ok(())
}
