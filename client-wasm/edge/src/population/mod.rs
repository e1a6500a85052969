//! Clients with data of their own, as a library's `federated.json` describes them: who takes part in its task when it
//! is simulated, and who is held out to judge.

mod photographs;
mod pictures;
mod recordings;
mod series;
mod texts;

use std::borrow::Cow;
use std::fmt;
use std::io::Read as _;

use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::person::Person;
use photographs::PhotographClients;
use pictures::PictureClients;
use recordings::RecordingClients;
use series::SeriesClients;
use texts::TextClients;

/// The file within a library that describes its clients.
pub const FILE: &str = "federated.json";

/// Most bytes of an unpacked file.
const UNPACKED: u64 = 256 << 20;

/// Reads a file of the library.
pub type Files<'a> = dyn Fn(&str) -> Result<Cow<'static, [u8]>, Problem> + 'a;

/// What held-out clients are for. Nobody is in both parts, and neither ever trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Settings are chosen by what they bring to these.
    Tuning,
    /// These say how good the chosen settings are; no choice looks at them.
    Judging,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tuning => "tuning",
            Self::Judging => "judging",
        })
    }
}

/// All clients of a library's task.
pub struct Population {
    task: Name,
    unit: String,
    source: Source,
}

enum Source {
    Pictures(PictureClients),
    Texts(TextClients),
    Recordings(RecordingClients),
    Series(SeriesClients),
    Photographs(PhotographClients),
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    format: u32,
    task: Name,
    unit: String,
    clients: Kind,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Kind {
    Pictures(pictures::Description),
    Texts(texts::Description),
    Recordings(recordings::Description),
    Series(series::Description),
    Photographs(photographs::Description),
}

impl Population {
    /// Reads a `federated.json` and what it names.
    pub fn read(description: &[u8], files: &Files<'_>) -> Result<Self, Problem> {
        let Description { format, task, unit, clients } =
            serde_json::from_slice(description).map_err(|e| bad(format!("{FILE}: {e}")))?;
        if format != 1 {
            return Err(bad(format!("{FILE}: format {format} is not 1")));
        }
        let source = match clients {
            Kind::Pictures(pictures) => Source::Pictures(PictureClients::read(pictures, files)?),
            Kind::Texts(texts) => Source::Texts(TextClients::read(&texts, files)?),
            Kind::Recordings(described) => {
                Source::Recordings(RecordingClients::read(described, files)?)
            }
            Kind::Series(described) => Source::Series(SeriesClients::read(described, files)?),
            Kind::Photographs(described) => {
                Source::Photographs(PhotographClients::read(described, files)?)
            }
        };
        Ok(Self { task, unit, source })
    }

    /// The task that they train.
    pub fn task(&self) -> &Name {
        &self.task
    }

    /// What one client stands for, in words.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// How many clients train; `None` where any number can be drawn.
    pub fn size(&self) -> Option<usize> {
        match &self.source {
            Source::Pictures(pictures) => pictures.len(),
            Source::Texts(texts) => Some(texts.len()),
            Source::Recordings(recordings) => Some(recordings.len()),
            Source::Series(series) => Some(series.len()),
            Source::Photographs(photographs) => Some(photographs.len()),
        }
    }

    /// The client of this number with its data; beyond the last one it begins again. The seed decides what is drawn.
    pub fn client(&self, number: usize, seed: u64) -> Result<Person, Problem> {
        match &self.source {
            Source::Pictures(pictures) => pictures.client(number, seed),
            Source::Texts(texts) => texts.client(number, seed),
            Source::Recordings(recordings) => recordings.client(number, seed),
            Source::Series(series) => series.client(number, seed),
            Source::Photographs(photographs) => photographs.client(number, seed),
        }
    }

    /// Clients who never train. Nothing of theirs is in anything that trains. Where the library names nobody for
    /// tuning, that part is empty.
    pub fn held_out(&self, part: Part, seed: u64) -> Result<Vec<Person>, Problem> {
        match &self.source {
            Source::Pictures(pictures) => pictures.held_out(part, seed),
            Source::Texts(texts) => texts.held_out(part, seed),
            Source::Recordings(recordings) => recordings.held_out(part, seed),
            Source::Series(series) => series.held_out(part, seed),
            Source::Photographs(photographs) => photographs.held_out(part, seed),
        }
    }
}

/// A generator for one client: apart from all others, and the same for the same seed.
fn generator(seed: u64, number: usize) -> u64 {
    seed.wrapping_mul(0x9E37_79B9).wrapping_add(number as u64)
}

/// Reads gzipped JSON.
fn unpacked<T: DeserializeOwned>(path: &str, packed: &[u8]) -> Result<T, Problem> {
    let mut text = Vec::new();
    let read = GzDecoder::new(packed).take(UNPACKED).read_to_end(&mut text);
    read.map_err(|e| bad(format!("{path} is not gzip: {e}")))?;
    serde_json::from_slice(&text).map_err(|e| bad(format!("{path}: {e}")))
}

/// Base64 of little-endian 16-bit integers, each times the scale.
fn numbers(packed: &str, scale: f32, path: &str) -> Result<Vec<f32>, Problem> {
    let bytes = STANDARD.decode(packed).map_err(|e| bad(format!("{path}: {e}")))?;
    let number = |two: &[u8; 2]| f32::from(i16::from_le_bytes(*two)) * scale;
    Ok(bytes.as_chunks::<2>().0.iter().map(number).collect())
}

fn bad(detail: String) -> Problem {
    Problem::new(Code::InputInvalid, detail)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use backstitch_client::input::Input;

    use super::*;
    use crate::node::Labelled;

    fn folder(library: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../onnx/models").join(library)
    }

    fn description(library: &str) -> String {
        std::fs::read_to_string(folder(library).join(FILE)).unwrap()
    }

    fn read(library: &str, description: &str) -> Result<Population, Problem> {
        let folder = folder(library);
        let files = |path: &str| Ok(Cow::from(std::fs::read(folder.join(path)).unwrap()));
        Population::read(description.as_bytes(), &files)
    }

    fn population(library: &str) -> Population {
        read(library, &description(library)).unwrap()
    }

    /// Inputs that stand in both.
    fn shared(a: &[Person], b: &[Person]) -> usize {
        let key = |example: &Labelled| match &example.input {
            Input::Image { rgba, .. } => rgba.clone(),
            other => format!("{other:?}").into_bytes(),
        };
        let keys = |people: &[Person]| -> BTreeSet<Vec<u8>> {
            people.iter().flat_map(Person::examples).map(key).collect()
        };
        keys(a).intersection(&keys(b)).count()
    }

    #[test]
    fn clients_of_every_library_differ_and_nobody_trains_on_who_judges() {
        for library in ["anomalies", "fashion", "motion", "photos", "sentiment"] {
            let population = population(library);
            let count = population.size().unwrap_or(40);
            assert!(count >= 40, "{library}: {count}");
            // A person's photographs take a megabyte.
            let looked_at = if library == "photos" { 40 } else { count };
            let clients: Vec<Person> =
                (0..looked_at).map(|number| population.client(number, 1).unwrap()).collect();
            let [tuning, judging] =
                [Part::Tuning, Part::Judging].map(|part| population.held_out(part, 1).unwrap());
            assert!(tuning.len() >= 10 && judging.len() >= 10, "{library}");
            assert_eq!(shared(&tuning, &judging), 0, "{library}: tuned on who judges");
            let held_out: Vec<Person> = tuning.into_iter().chain(judging).collect();
            let least = clients.iter().map(|c| c.examples().len()).min().unwrap();
            assert!(least >= 4, "{library}: a client has {least} examples");
            assert_eq!(shared(&clients, &held_out), 0, "{library}");
            assert!(shared(&clients[..1], &clients[1..2]) < 3, "{library}: two are the same");
            let again = population.client(3, 1).unwrap();
            assert_eq!(clients[3].examples(), again.examples(), "{library}: not the seed's");
            if population.size().is_some() {
                let next = population.client(count + 3, 1).unwrap();
                assert_eq!(next.examples(), again.examples(), "{library}: not from the start");
            }
        }
    }

    #[test]
    fn nobody_tunes_who_trains_and_without_a_word_nobody_tunes() {
        let described = description("motion");
        let refused = read("motion", &described.replace("   9\n", "   1\n")).err().unwrap();
        assert!(refused.detail().contains("person 1"), "{refused}");
        let nobody = described.replace("   9\n", "");
        let nobody = read("motion", &nobody).unwrap();
        let count = |part| nobody.held_out(part, 1).unwrap().len();
        assert_eq!((count(Part::Tuning), count(Part::Judging)), (0, 32));
    }

    #[test]
    fn bad_descriptions_are_refused() {
        let check = |text: &str| {
            let files = |path: &str| Err(bad(format!("no {path}")));
            Population::read(text.as_bytes(), &files).err().unwrap().detail().to_owned()
        };
        let all =
            r#"{"format": 1, "task": "t", "unit": "u", "clients": {"kind": "texts", "file": "a"}}"#;
        assert_eq!(check(all), "no a");
        assert!(check(&all.replace("1,", "2,")).contains("format 2"));
        assert!(check(&all.replace("texts", "smells")).contains("smells"));
        assert!(check(&all.replace("\"file\"", "\"path\"")).contains("path"));
    }
}
