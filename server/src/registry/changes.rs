//! What a library says of itself, before and after an import: whoever imports over a live library sees what they
//! replaced.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::descriptor::LibraryDescriptor;

/// Characters of a value that are printed.
const SHOWN: usize = 120;

/// One thing that a library says otherwise than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Such as `title`, `preprocessing.scale` or `task style.goal`.
    pub what: String,
    /// What it said; none where it said nothing.
    pub before: Option<Value>,
    /// What it says; none where it says nothing any more.
    pub after: Option<Value>,
}

impl Change {
    /// What differs between two descriptions of a library.
    pub(super) fn all(before: &LibraryDescriptor, after: &LibraryDescriptor) -> Vec<Self> {
        let (before, mut after) = (said(before), said(after));
        let mut changes: Vec<Self> = Vec::new();
        for (what, value) in before {
            let now = after.remove(&what);
            if now.as_ref() != Some(&value) {
                changes.push(Self { what, before: Some(value), after: now });
            }
        }
        let new =
            after.into_iter().map(|(what, value)| Self { what, before: None, after: Some(value) });
        changes.extend(new);
        changes
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => {
                write!(f, "{} changed from {} to {}", self.what, short(before), short(after))
            }
            (None, Some(after)) => write!(f, "{} is new: {}", self.what, short(after)),
            (before, None) => {
                let before = before.as_ref().map(short).unwrap_or_default();
                write!(f, "{} is gone: it was {before}", self.what)
            }
        }
    }
}

/// The start of a value's JSON.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

/// Everything that a description says, by what it is called. The primary's keys stand beside the library's own, and a
/// task goes by its name.
fn said(library: &LibraryDescriptor) -> BTreeMap<String, Value> {
    let mut said = BTreeMap::new();
    let Ok(Value::Object(keys)) = serde_json::to_value(library) else { return said };
    for (key, value) in keys {
        match (key.as_str(), value) {
            ("primary", Value::Object(primary)) => {
                primary.into_iter().for_each(|(key, value)| spread(&mut said, key, value));
            }
            ("tasks", Value::Array(tasks)) => {
                for (task, value) in library.tasks.iter().zip(tasks) {
                    spread(&mut said, format!("task {}", task.name), value);
                }
            }
            (_, value) => spread(&mut said, key, value),
        }
    }
    said
}

/// Adds the keys of an object one by one, so that a change of one does not show them all. What says nothing is left
/// out.
fn spread(said: &mut BTreeMap<String, Value>, what: String, value: Value) {
    match value {
        Value::Null => {}
        Value::Object(keys) => {
            keys.into_iter().for_each(|(key, value)| spread(said, format!("{what}.{key}"), value));
        }
        value => drop(said.insert(what, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(edit: impl Fn(&mut Value)) -> LibraryDescriptor {
        let mut library = serde_json::json!({
            "format": 1, "name": "toy", "title": "Toy", "description": "D", "modality": "image",
            "primary": { "file": "primary.onnx", "input": "x", "output": "y", "labels": ["a", "b"],
                         "preprocessing": { "width": 2, "height": 2, "channels": 1 } },
            "patches": ["style"],
            "tasks": [ { "name": "style", "patches": ["style"], "goal": 8, "clip_norm": 1.0, "noise_multiplier": 2.54,
                         "max_participations": 4, "period_days": 30, "min_separation": 1, "epsilon": 4.0, "delta": 1e-6,
                         "server_learning_rate": 1.0, "server_momentum": 0.5 } ]
        });
        edit(&mut library);
        LibraryDescriptor::from_bytes(library.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn every_change_is_told_by_its_name() {
        let before = library(|_| {});
        assert_eq!(Change::all(&before, &before), []);
        let after = library(|library| {
            library["title"] = "Other".into();
            library["primary"]["labels"] = serde_json::json!(["b", "a"]);
            library["primary"]["preprocessing"]["scale"] = 1.0.into();
            library["tasks"][0]["goal"] = 9.into();
            library["samples"] = "samples.json".into();
        });
        let told: Vec<String> =
            Change::all(&before, &after).iter().map(Change::to_string).collect();
        assert_eq!(
            told,
            [
                r#"labels changed from ["a","b"] to ["b","a"]"#,
                "task style.goal changed from 8 to 9",
                r#"title changed from "Toy" to "Other""#,
                "preprocessing.scale is new: 1.0",
                r#"samples is new: "samples.json""#,
            ]
        );
        let back: Vec<String> =
            Change::all(&after, &before).iter().map(Change::to_string).collect();
        assert!(back.contains(&r#"samples is gone: it was "samples.json""#.to_owned()), "{back:?}");
    }

    #[test]
    fn long_values_are_cut() {
        let long =
            Change { what: "labels".into(), before: None, after: Some("ü".repeat(500).into()) };
        assert!(long.to_string().chars().count() < 150, "{long}");
    }
}
