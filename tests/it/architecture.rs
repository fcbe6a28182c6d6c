//! Which packages may depend on which, read from cargo's metadata.

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

struct Packages {
    /// Direct dependencies by package name, without dev-dependencies.
    dependencies: BTreeMap<String, BTreeSet<String>>,
    /// The workspace's own packages.
    members: BTreeSet<String>,
}

/// Cargo's output. Offline, because everything needed is already on this machine.
fn cargo(arguments: &[&str]) -> String {
    let answer = Command::new(env!("CARGO")).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&answer.stderr);
    assert!(answer.status.success(), "{errors}");
    String::from_utf8(answer.stdout).unwrap()
}

fn packages() -> Packages {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    // Packages of other platforms may never have been downloaded.
    let here = ["--filter-platform", host.unwrap()];
    let metadata = ["metadata", "--format-version", "1", "--offline", "--locked"];
    let metadata = cargo(&[&metadata[..], &here].concat());
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let name_of: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
        .collect();
    let ids = metadata["workspace_members"].as_array().unwrap();
    let members = ids.iter().map(|id| name_of[id.as_str().unwrap()].to_owned());
    let mut dependencies = BTreeMap::<_, BTreeSet<_>>::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let direct =
            dependencies.entry(name_of[node["id"].as_str().unwrap()].to_owned()).or_default();
        for dependency in node["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            if kinds.iter().any(|kind| kind["kind"].is_null()) {
                direct.insert(name_of[dependency["pkg"].as_str().unwrap()].to_owned());
            }
        }
    }
    Packages { dependencies, members: members.collect() }
}

impl Packages {
    fn own_of(&self, package: &str) -> Vec<&str> {
        let own = |name: &&String| self.members.contains(*name);
        self.dependencies[package].iter().filter(own).map(String::as_str).collect()
    }
}

/// All that `package` depends on, directly or not, when built by itself.
fn tree_of(package: &str) -> BTreeSet<String> {
    let tree = ["tree", "--offline", "--locked", "--edges", "normal"];
    let format = ["--prefix", "none", "--format", "{p}", "--package", package];
    let tree = cargo(&[&tree[..], &format].concat());
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

/// No I/O, async, clock, AWS types or logging can slip in.
#[test]
fn the_pure_crates_depend_on_an_allow_list() {
    let allowed = [
        "account",
        "billing",
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
    for package in ["account", "billing", "routing", "card"] {
        let tree = tree_of(package);
        assert!(tree.contains("jiff"), "the tree is not empty");
        let more: Vec<_> = tree.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert_eq!(more, Vec::<&String>::new(), "{package}");
    }
}

/// A newer version of the runtime client would silently lack the patch: cargo only warns.
#[test]
fn the_runtimes_client_is_the_patched_one() {
    let lock = include_str!("../../Cargo.lock");
    let package = "[[package]]\nname = \"lambda_runtime_api_client\"\n";
    let found: Vec<&str> = lock.split(package).skip(1).collect();
    let [one] = found.as_slice() else {
        panic!("found {} versions", found.len());
    };
    let (one, _) = one.split_once("\n\n").unwrap();
    assert!(!one.contains("source = "), "from the registry: {one}");
    let patch = include_str!("../../infra/vendor/lambda_runtime_api_client.patch");
    let made = include_str!("../../infra/vendor/lambda_runtime_api_client/src/lib.rs");
    let added = patch.lines().filter_map(|line| line.strip_prefix('+'));
    for line in added.filter(|line| !line.starts_with("++")) {
        assert!(made.contains(line), "{line}");
    }
}

/// functions → charging, api → edge, store, upstream, payments → keyvault, card, billing, routing
/// → account.
#[test]
fn dependencies_point_down_only() {
    let packages = packages();
    let middle = ["edge", "payments", "store", "upstream"];
    let below = ["account", "billing", "card", "keyvault", "routing"];
    for package in middle {
        let own = packages.own_of(package);
        assert!(own.iter().all(|name| below.contains(name)), "{package} → {own:?}");
    }
    // Each combines some of them for several functions.
    let allowed = |name: &&str| middle.contains(name) || below.contains(name);
    for package in ["api", "charging"] {
        let own = packages.own_of(package);
        assert!(own.iter().all(allowed), "{package} → {own:?}");
    }
    assert_eq!(packages.own_of("account"), Vec::<&str>::new());
    assert_eq!(packages.own_of("routing"), ["account"]);
    assert_eq!(packages.own_of("keyvault"), ["account"]);
    let functions = [
        "account-events",
        "ai-proxy",
        "integration-settings",
        "key-save",
        "monthly-charge",
        "reconciler",
        "settings-page",
        "subscription-webhook",
    ];
    for function in functions {
        let own = packages.own_of(function);
        let allowed = |name: &&str| ["api", "charging"].contains(name) || allowed(name);
        assert!(own.iter().all(allowed), "{function} → {own:?}");
    }
    assert!(!packages.own_of("integration-settings").contains(&"keyvault"), "it never sees a key");
}
