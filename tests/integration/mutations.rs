//! Faults that would break the privacy promise, put into the source for real: the test that is named for each must
//! fail. The quick test checks that every fault still fits the source and that its test exists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutations {
    mutation: Vec<Mutation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutation {
    name: String,
    package: String,
    /// Which of the package's test binaries; its unit tests where it is left out.
    #[serde(default)]
    binary: Option<String>,
    /// The full name of the test that must fail.
    test: String,
    edit: Vec<Edit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    file: String,
    /// Stands in the file once.
    find: String,
    replace: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn mutations() -> Vec<Mutation> {
    let text = std::fs::read_to_string(root().join("tests/mutations/mutations.toml")).unwrap();
    toml::from_str::<Mutations>(&text).unwrap().mutation
}

impl Mutation {
    /// Every changed file with its new text.
    fn apply(&self, root: &Path) -> BTreeMap<PathBuf, String> {
        let mut changed = BTreeMap::new();
        for Edit { file, find, replace } in &self.edit {
            let path = root.join(file);
            let text = changed
                .entry(path.clone())
                .or_insert_with(|| std::fs::read_to_string(&path).unwrap());
            assert_eq!(text.matches(find).count(), 1, "{}: `{find}` in {file}", self.name);
            *text = text.replace(find, replace);
        }
        changed
    }

    /// Whether the named test passes in these sources. It must exist.
    fn passes(&self, sources: &Path, target: &Path) -> bool {
        let binary = match &self.binary {
            Some(name) => vec!["--test", name],
            None => vec!["--lib"],
        };
        let output = Command::new(env!("CARGO"))
            .args(["test", "--quiet", "--package", &self.package])
            .args(binary)
            .args(["--", "--exact", &self.test])
            .current_dir(sources)
            .env("CARGO_TARGET_DIR", target)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains("could not compile"), "{}: {text}", self.name);
        let passed = text.contains("test result: ok. 1 passed");
        assert!(
            passed || text.contains("1 failed"),
            "{}: {} did not run: {text}",
            self.name,
            self.test
        );
        passed
    }
}

#[test]
fn every_fault_fits_the_source_and_has_a_test() {
    let mutations = mutations();
    let promised = ["0.9", "0.5", "missing", "reused", "clip skipped", "divisor", "debit skipped"];
    let admitted = ["replay", "without a token", "second token", "cap skipped", "fails open"];
    let believed =
        ["rollback", "freeze", "mix and match", "another root", "expired", "over its budget"];
    for wanted in [&promised[..], &admitted, &believed].concat() {
        assert!(mutations.iter().any(|m| m.name.contains(wanted)), "no fault `{wanted}`");
    }
    let sources: String = [
        "client-wasm/client/src",
        "client-wasm/client/src/client",
        "server/src/admission",
        "server/src/http",
        "server/src/privacy",
        "server/src/privacy/noise",
        "server/src/round",
        "server/protocol/src",
        "server/protocol/src/trust",
        "server/protocol/tests",
    ]
    .iter()
    .flat_map(|folder| std::fs::read_dir(root().join(folder)).unwrap().map(Result::unwrap))
    .filter(|entry| entry.path().extension().is_some_and(|e| e == "rs"))
    .map(|entry| std::fs::read_to_string(entry.path()).unwrap())
    .collect();
    for mutation in &mutations {
        assert!(!mutation.apply(&root()).is_empty());
        let test = mutation.test.rsplit("::").next().unwrap();
        assert!(sources.contains(&format!("fn {test}(")), "{}: no test {test}", mutation.name);
    }
}

#[test]
#[ignore = "minutes: just mutations"]
fn every_fault_is_caught_by_its_test() {
    let copy = tempfile::tempdir().unwrap();
    let tracked =
        Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    for path in String::from_utf8(tracked.stdout).unwrap().split('\0').filter(|p| !p.is_empty()) {
        let to = copy.path().join(path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(root().join(path), to).unwrap();
    }
    // Beside our own, so that third-party crates are shared and nothing else is.
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let mut survivors = Vec::new();
    // `just mutations token` puts in those whose name says so.
    let wanted = std::env::var("MUTATIONS").unwrap_or_default();
    for mutation in mutations().into_iter().filter(|m| m.name.contains(&wanted)) {
        let originals: Vec<(PathBuf, String)> = mutation
            .apply(copy.path())
            .into_iter()
            .map(|(path, text)| {
                let original = std::fs::read_to_string(&path).unwrap();
                std::fs::write(&path, text).unwrap();
                (path, original)
            })
            .collect();
        let caught = !mutation.passes(copy.path(), &target);
        println!("{}: {}", mutation.name, if caught { "caught" } else { "SURVIVED" });
        for (path, text) in originals {
            std::fs::write(path, text).unwrap();
        }
        if !caught {
            survivors.push(mutation.name);
        }
    }
    assert!(survivors.is_empty(), "not caught: {survivors:?}");
}
