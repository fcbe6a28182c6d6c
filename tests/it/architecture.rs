//! What may depend on what, read from the packages themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

struct Packages {
    /// Direct dependencies by package name, without those of tests.
    dependencies: BTreeMap<String, BTreeSet<String>>,
    /// The workspace's own.
    members: BTreeSet<String>,
}

fn packages() -> Packages {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .output()
        .unwrap();
    assert!(
        metadata.status.success(),
        "{}",
        String::from_utf8_lossy(&metadata.stderr)
    );
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let name_of: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            (
                package["id"].as_str().unwrap(),
                package["name"].as_str().unwrap(),
            )
        })
        .collect();
    let ids = metadata["workspace_members"].as_array().unwrap();
    let members = ids
        .iter()
        .map(|id| name_of[id.as_str().unwrap()].to_owned());
    let mut dependencies = BTreeMap::<_, BTreeSet<_>>::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let direct = dependencies
            .entry(name_of[node["id"].as_str().unwrap()].to_owned())
            .or_default();
        for dependency in node["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            if kinds.iter().any(|kind| kind["kind"].is_null()) {
                direct.insert(name_of[dependency["pkg"].as_str().unwrap()].to_owned());
            }
        }
    }
    Packages {
        dependencies,
        members: members.collect(),
    }
}

impl Packages {
    fn own_of(&self, package: &str) -> Vec<&str> {
        let own = |name: &&String| self.members.contains(*name);
        self.dependencies[package]
            .iter()
            .filter(own)
            .map(String::as_str)
            .collect()
    }
}

/// All that `package` depends on, however deep, as it is built by itself.
fn tree_of(package: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}", "--package", package])
        .output()
        .unwrap();
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let tree = String::from_utf8(tree.stdout).unwrap();
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

/// No I/O, no async, no clock, no AWS types, no logging can come in unseen.
#[test]
fn the_pure_crates_depend_on_an_allow_list() {
    let allowed = [
        "account",
        "card",
        "jiff",
        "jiff-core",
        "proc-macro2",
        "quote",
        "routing",
        "serde",
        "serde_core",
        "serde_derive",
        "syn",
        "thiserror",
        "thiserror-impl",
        "unicode-ident",
    ];
    for package in ["account", "routing", "card"] {
        let tree = tree_of(package);
        assert!(tree.contains("jiff"), "the tree was read");
        let more: Vec<_> = tree
            .iter()
            .filter(|name| !allowed.contains(&name.as_str()))
            .collect();
        assert_eq!(more, Vec::<&String>::new(), "{package}");
    }
}

/// Who pays, who is entitled, who owes: one crate answers, and these four ask it.
#[test]
fn all_who_decide_about_money_ask_routing() {
    let packages = packages();
    for package in [
        "ai-proxy",
        "key-save",
        "subscription-webhook",
        "monthly-charge",
    ] {
        assert!(packages.own_of(package).contains(&"routing"), "{package}");
    }
}

/// functions → edge, store, keyvault, upstream, payments → routing → account.
#[test]
fn arrows_point_down_only() {
    let packages = packages();
    let middle = ["edge", "keyvault", "payments", "store", "upstream"];
    let below = ["account", "card", "routing"];
    for package in middle {
        let own = packages.own_of(package);
        assert!(
            own.iter().all(|name| below.contains(name)),
            "{package} → {own:?}"
        );
    }
    assert_eq!(packages.own_of("account"), Vec::<&str>::new());
    assert_eq!(packages.own_of("routing"), ["account"]);
    let functions = [
        "account-events",
        "ai-proxy",
        "integration-settings",
        "key-save",
        "monthly-charge",
        "settings-page",
        "subscription-webhook",
    ];
    for function in functions {
        let own = packages.own_of(function);
        let allowed = |name: &&str| middle.contains(name) || below.contains(name);
        assert!(own.iter().all(allowed), "{function} → {own:?}");
    }
    assert!(
        !packages
            .own_of("integration-settings")
            .contains(&"keyvault"),
        "it never sees a key"
    );
}
