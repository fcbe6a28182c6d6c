//! Imports between the files of a package run one way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The files of ai-proxy from top to bottom: each imports only from files below it.
const AI_PROXY: [&str; 22] = [
    "lib",
    "chat",
    "models",
    "byok",
    "credits",
    "credits/stream",
    "credits/hold",
    "credits/held_call",
    "credits/default_ai",
    "credits/credits_request",
    "credits/prompt",
    "credits/client",
    "key_health",
    "byok_stream",
    "body_chunks",
    "stream_error",
    "call",
    "receipt",
    "request",
    "deps",
    "running",
    "settings",
];

/// The files that each file of a package imports from, by module path (`credits/stream`; the root
/// is `lib`). A file also imports from the files of the modules that it declares.
struct Imports(BTreeMap<String, BTreeSet<String>>);

impl Imports {
    fn of_package(package: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let source = root.join(package).join("src");
        let mut files = BTreeMap::new();
        read_files(&source, &source, &mut files);
        Self::of_files(&files)
    }

    fn of_files(files: &BTreeMap<String, String>) -> Self {
        let mut imports = BTreeMap::new();
        for (file, source) in files {
            let code = without_tests_and_comments(source);
            let resolved = paths_in(&code).into_iter();
            let resolved = resolved.filter_map(|path| resolve(files, file, &path));
            imports.insert(file.clone(), resolved.filter(|to| to != file).collect());
        }
        // Modules that only tests declare are not part of the package.
        let mut this = Self(imports);
        let shipped = this.reachable_from("lib");
        this.0.retain(|file, _| shipped.contains(file));
        this
    }

    fn reachable_from(&self, file: &str) -> BTreeSet<String> {
        let mut reachable = BTreeSet::new();
        let mut open = vec![file.to_owned()];
        while let Some(file) = open.pop() {
            if reachable.insert(file.clone()) {
                open.extend(self.0[&file].iter().cloned());
            }
        }
        reachable
    }

    /// The files that are in a cycle.
    fn cycles(&self) -> Vec<&String> {
        let in_cycle = |file: &&String| {
            let mut imports = self.0[*file].iter();
            imports.any(|import| self.reachable_from(import).contains(*file))
        };
        self.0.keys().filter(in_cycle).collect()
    }
}

fn packages_in(folder: &str) -> impl Iterator<Item = String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let names = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(move |name| format!("{folder}/{}", name.to_str().unwrap()))
}

fn read_files(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_files(root, &path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let name = path.strip_prefix(root).unwrap().with_extension("");
            let name = name.to_str().unwrap().trim_end_matches("/mod").to_owned();
            files.insert(name, fs::read_to_string(path).unwrap());
        }
    }
}

fn without_tests_and_comments(source: &str) -> String {
    let mut code = String::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            // A test module in this file ends with a brace at the margin.
            let is_inline = lines.next().is_some_and(|module| module.ends_with('{'));
            while is_inline && lines.next().is_some_and(|line| line != "}") {}
            continue;
        }
        let (line, _comment) = line.split_once("//").unwrap_or((line, ""));
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// Every path in the code, formatted by rustfmt, that may lead to another file.
fn paths_in(code: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut paths = Vec::new();
    let mut lines = code.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let item = ["pub(crate) ", "pub(super) ", "pub "];
        let item = item.iter().find_map(|prefix| line.strip_prefix(prefix));
        let item = item.unwrap_or(line);
        if let Some(tree) = item.strip_prefix("use ") {
            let mut tree = tree.to_owned();
            while !tree.ends_with(';') {
                tree.push_str(lines.next().unwrap());
            }
            expand(String::new(), tree.trim_end_matches(';'), &mut paths);
        } else if let Some(module) = item.strip_prefix("mod ") {
            paths.extend(module.strip_suffix(';').map(|module| format!("self::{module}")));
        } else {
            let words = line.split(|c| !is_path(c)).map(str::to_owned);
            paths.extend(words.filter(|word| word.contains("::")));
        }
    }
    paths
}

/// Expands a `use` tree: `a::{b, c::d}` into `a::b` and `a::c::d`.
fn expand(prefix: String, tree: &str, paths: &mut Vec<String>) {
    let Some((path, group)) = tree.trim().split_once('{') else {
        let path = tree.split_whitespace().next().unwrap_or_default();
        paths.push(prefix + path);
        return;
    };
    let (group, _) = group.rsplit_once('}').unwrap();
    let mut depth = 0;
    let branches = group.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0 && c == ','
    });
    for branch in branches {
        expand(format!("{prefix}{path}"), branch, paths);
    }
}

/// The file that `path` leads to from `file`; `None` if it leads out of the package.
fn resolve(files: &BTreeMap<String, String>, file: &str, path: &str) -> Option<String> {
    let mut segments = path.split("::").peekable();
    let mut module: Vec<&str> = file.split('/').filter(|part| *part != "lib").collect();
    if segments.next_if_eq(&"crate").is_some() {
        module.clear();
    } else if segments.peek() == Some(&"super") {
        while segments.next_if_eq(&"super").is_some() {
            module.pop()?;
        }
    } else if segments.next_if_eq(&"self").is_none() {
        let child = [&module[..], &[*segments.peek()?]].concat();
        files.get(&child.join("/"))?;
    }
    for segment in segments {
        module.push(segment);
        if !files.contains_key(&module.join("/")) {
            module.pop();
            break;
        }
    }
    let file = if module.is_empty() { "lib".to_owned() } else { module.join("/") };
    Some(file)
}

#[test]
fn no_files_import_each_other() {
    let packages = packages_in("functions").chain(packages_in("shared"));
    let packages = packages.chain(["infra/ctl", "infra/local"].map(str::to_owned));
    let cycles = packages.flat_map(|package| {
        let imports = Imports::of_package(&package);
        imports.cycles().into_iter().map(|file| format!("{package}/{file}")).collect::<Vec<_>>()
    });
    assert_eq!(cycles.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn files_of_ai_proxy_import_only_from_below() {
    let imports = Imports::of_package("functions/ai-proxy");
    let place = |file: &str| AI_PROXY.iter().position(|listed| *listed == file);
    for (file, imported) in &imports.0 {
        let above = place(file).unwrap_or_else(|| panic!("{file} has no place in the list"));
        for import in imported {
            assert!(place(import) > Some(above), "{file} imports from {import}");
        }
    }
}

/// Under "Always use this key", no credits move: the BYOK path cannot even name the credits path.
#[test]
fn byok_cannot_reach_credits() {
    let imports = Imports::of_package("functions/ai-proxy");
    let reachable = imports.reachable_from("byok");
    let is_credits = |file: &&String| file.starts_with("credits");
    assert_eq!(reachable.iter().find(is_credits), None);
    assert!(imports.0["chat"].contains("credits"), "the check sees credits");
}

/// The checks above see every kind of path, in shipped code only.
#[test]
fn imports_are_found_in_every_form() {
    let files = [
        ("lib", "pub(crate) mod a;\nmod b;\nmod c;\n#[cfg(test)]\nmod tests;\n"),
        ("a", "mod inner;\nuse crate::{b::X, c::{self, Y}};\nuse inner::Z;\n"),
        ("a/inner", "use super::super::c;\nfn f() -> crate::b::X { g() }\n"),
        ("b", "// use crate::a;\n#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n"),
        ("c", "use super::b::{W as V};\nfn f() { super::Root::new(); }\n"),
        ("tests", "use crate::a;\n"),
    ];
    let files = files.map(|(name, source)| (name.to_owned(), source.to_owned()));
    let imports = Imports::of_files(&BTreeMap::from(files));
    let expected = [
        ("a", vec!["a/inner", "b", "c"]),
        ("a/inner", vec!["b", "c"]),
        ("b", vec![]),
        ("c", vec!["b", "lib"]),
        ("lib", vec!["a", "b", "c"]),
    ];
    let found: Vec<(&str, Vec<&str>)> = imports
        .0
        .iter()
        .map(|(file, to)| (file.as_str(), to.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(found, expected);
    // `c` closes the cycle through the root.
    assert_eq!(imports.cycles(), ["a", "a/inner", "c", "lib"]);
}
