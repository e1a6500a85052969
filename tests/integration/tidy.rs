//! The architecture, as tests: which crate may know which, where a dependency may be named, and how long things
//! may grow. A failure names the file and the rule.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::visit::Visit;

const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 500;

/// The crates of the workspace and the workspace crates that each may use.
const DEPENDENCIES: &[(&str, &[&str])] = &[
    ("onnx/kernels", &[]),
    ("onnx", &["backstitch-kernels"]),
    ("server/protocol", &["backstitch-onnx"]),
    ("client-wasm/client", &["backstitch-onnx", "backstitch-protocol"]),
    ("client-wasm/edge", &["backstitch-client", "backstitch-onnx", "backstitch-protocol"]),
    ("client-wasm", &["backstitch-client", "backstitch-onnx", "backstitch-protocol"]),
    ("server", &["backstitch-client", "backstitch-edge", "backstitch-onnx", "backstitch-protocol"]),
];

/// Within `server`, only these may know the client side: the demo and the command line that drives it.
const SERVER_ROOMS_THAT_KNOW_THE_CLIENT: &[&str] = &["server/src/cli/", "server/src/demo"];

/// Words that only one folder may name, since what they stand for changes under us or must stay in one place.
const NAMED_ONLY_IN: &[(&str, &str)] = &[
    ("tract_onnx", "onnx/src/engine"),
    ("opendp::", "server/src/privacy/"),
    ("object_store::", "server/src/blob"),
    ("ureq::", "client-wasm/edge/src/"),
    ("web_sys::", "client-wasm/src/"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust source file with its path relative to the root, tests and generated code left out.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir()
                && !matches!(name.as_str(), "target" | "node_modules" | "models" | "dist")
            {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let root = root();
    let mut paths = Vec::new();
    for folder in ["onnx", "client-wasm", "server", "tests"] {
        walk(&root.join(folder), &mut paths);
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            (relative, std::fs::read_to_string(&path).unwrap())
        })
        .filter(|(path, _)| path != "onnx/src/proto.rs")
        .collect()
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// The lines before the inline tests.
fn production(text: &str) -> &str {
    text.split("\n#[cfg(test)]").next().unwrap_or(text)
}

fn report(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn dependencies_point_one_way() {
    let mut found = Vec::new();
    for (folder, allowed) in DEPENDENCIES {
        let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let manifest: BTreeMap<String, toml::Value> = toml::from_str(&text).unwrap();
        let names = manifest
            .get("dependencies")
            .and_then(|d| d.as_table())
            .into_iter()
            .flat_map(|d| d.keys());
        for name in names.filter(|n| n.starts_with("backstitch-")) {
            if !allowed.contains(&name.as_str()) {
                found.push(format!("{folder} depends on {name}"));
            }
        }
    }
    report("a crate knows one that it must not", found);
}

#[test]
fn only_the_demo_and_the_command_line_know_the_client() {
    let found = sources()
        .into_iter()
        .filter(|(path, text)| {
            path.starts_with("server/src/")
                && (text.contains("backstitch_client") || text.contains("backstitch_edge"))
                && !SERVER_ROOMS_THAT_KNOW_THE_CLIENT.iter().any(|room| path.starts_with(room))
        })
        .map(|(path, _)| path)
        .collect();
    report("the server proper knows the client", found);
}

#[test]
fn some_dependencies_are_named_in_one_place() {
    let mut found = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| !is_test(path)) {
        for (word, room) in NAMED_ONLY_IN {
            if production(text).contains(word) && !path.starts_with(room) {
                found.push(format!("{path} names {word}, which belongs to {room}"));
            }
        }
    }
    report("a dependency leaks out of its room", found);
}

#[test]
fn every_file_says_what_it_is_for() {
    let found = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path)
        .collect();
    report("no `//!` line at the top", found);
}

#[test]
fn no_file_is_longer_than_a_sitting() {
    let found = sources()
        .into_iter()
        .filter(|(path, _)| !is_test(path))
        .map(|(path, text)| (path, production(&text).lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    report("a file is over 500 lines", found);
}

#[test]
fn no_function_is_longer_than_a_page() {
    struct Functions<'a> {
        path: &'a str,
        found: Vec<String>,
    }
    impl Functions<'_> {
        fn measure(&mut self, name: &syn::Ident, block: &syn::Block) {
            let lines = block.span().end().line - block.span().start().line + 1;
            if lines > FUNCTION_LINES {
                self.found.push(format!("{}: `{name}` has {lines} lines", self.path));
            }
        }
    }
    impl<'ast> Visit<'ast> for Functions<'_> {
        fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
            self.measure(&item.sig.ident, &item.block);
            syn::visit::visit_item_fn(self, item);
        }
        fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
            self.measure(&item.sig.ident, &item.block);
            syn::visit::visit_impl_item_fn(self, item);
        }
    }
    let mut found = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| !is_test(path)) {
        let file = syn::parse_file(text).unwrap_or_else(|e| panic!("{path} does not parse: {e}"));
        let mut functions = Functions { path, found: Vec::new() };
        functions.visit_file(&file);
        found.append(&mut functions.found);
    }
    report("a function is over 70 lines", found);
}

#[test]
fn nothing_is_left_undone() {
    // Spelled in halves, so that this file does not accuse itself.
    let marks = [
        concat!("tod", "o!("),
        concat!("unimplemented", "!("),
        concat!("#[ign", "ore"),
        concat!("FIX", "ME"),
    ];
    let mut found = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            // A test that takes minutes has a quick twin, and says by which recipe it runs.
            let long = line.contains(marks[2]) && line.contains(": just ");
            if !long && marks.iter().any(|mark| line.contains(mark)) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    report("unfinished work", found);
}

#[test]
fn names_say_what_a_thing_is() {
    let vague = ["utils", "util", "helpers", "helper", "manager", "misc", "common"];
    let found = sources()
        .into_iter()
        .filter(|(path, _)| {
            path.trim_end_matches(".rs").split('/').any(|part| {
                vague.iter().any(|word| part == *word || part.ends_with(&format!("_{word}")))
            })
        })
        .map(|(path, _)| path)
        .collect();
    report("a name that says nothing", found);
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Why a promise's test or command does not exist, for each one that does not.
fn missing(cell: &str, tests: &[String], recipes: &[String]) -> Vec<String> {
    let lacks = |word: &str| match word.split_whitespace().collect::<Vec<_>>()[..] {
        ["cargo", "test", "-p", package, ref words @ ..] => {
            let words = words.iter().take_while(|w| **w != "--").filter(|w| !w.starts_with("--"));
            let wanted = words.last().map_or(String::new(), |w| w.replace('/', "::"));
            let folder = package.trim_start_matches("backstitch-");
            !tests.iter().any(|t| t.contains(folder) && t.contains(&wanted))
        }
        ["just", recipe, ..] => !recipes.iter().any(|r| r == recipe),
        ["node", "--test", file] => !root().join(file).exists(),
        ["backstitch", ..] => false,
        [file] if file.contains('/') => !root().join(file).exists(),
        [name] => {
            let name = name.trim_start_matches('…').rsplit("::").next().unwrap();
            !tests.iter().any(|t| t.ends_with(name))
        }
        _ => true,
    };
    quoted(cell).filter(|word| lacks(word)).map(str::to_owned).collect()
}

#[test]
fn every_promise_names_a_test_and_a_command_that_exist() {
    let mut tests = Vec::new();
    for (path, text) in sources() {
        let names =
            text.match_indices("fn ").filter_map(|(at, _)| text[at + 3..].split('(').next());
        tests.extend(names.map(|name| format!("{}::{name}", path.replace('/', "::"))));
    }
    let recipes = std::fs::read_to_string(root().join("justfile")).unwrap();
    let words = |line: &str| line.split([' ', ':']).next().unwrap_or_default().to_owned();
    let recipes: Vec<String> = recipes.lines().map(words).filter(|word| !word.is_empty()).collect();
    let mut found = Vec::new();
    for page in ["docs/PRIVACY.md", "docs/SECURITY.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        // The columns of the table at hand that name tests and commands; none outside of a table.
        let mut proving: Option<Vec<usize>> = None;
        for line in text.lines() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let heads = |i: &usize| cells[*i].starts_with("test") || cells[*i] == "command";
            if !line.starts_with('|') {
                proving = None;
            } else if proving.is_none() {
                proving = Some((0..cells.len()).filter(heads).collect());
            } else if !cells[0].starts_with("---") {
                for cell in proving.iter().flatten().map(|i| cells[*i]) {
                    if quoted(cell).next().is_none() {
                        found.push(format!("{page}: {} names nothing that can fail", cells[0]));
                    }
                    let lacks = missing(cell, &tests, &recipes);
                    found.extend(lacks.iter().map(|word| format!("{page}: no `{word}`")));
                }
            }
        }
    }
    report("a promise names what is not there", found);
}
