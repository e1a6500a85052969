//! Clients with series that nobody has labelled: every window of them is taken as ordinary, which is 0 to a model
//! that scores.

use backstitch_client::examples::Target;
use backstitch_client::input::Input;
use backstitch_client::random::SplitMix;
use backstitch_protocol::Problem;
use serde::Deserialize;

use super::{Files, Part, bad, generator, numbers, unpacked};
use crate::node::Labelled;
use crate::person::Person;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    /// Gzipped JSON.
    file: String,
    /// Moments of a window, and from one to the next.
    window: usize,
    stride: usize,
    /// Kinds of device of which none trains.
    held_out: Vec<u32>,
    /// Of the kinds held out, those who only choose settings.
    #[serde(default)]
    tuning: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    scale: f32,
    devices: Vec<Device>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    kind: u32,
    /// Each base64 of little-endian 16-bit integers, moment by moment.
    series: Vec<String>,
}

/// Windows of one device.
type Windows = Vec<Vec<f32>>;

pub(super) struct SeriesClients {
    training: Vec<Windows>,
    tuning: Vec<Windows>,
    judging: Vec<Windows>,
}

impl SeriesClients {
    pub(super) fn read(described: Description, files: &Files<'_>) -> Result<Self, Problem> {
        let Description { file: path, window, stride, held_out, tuning } = described;
        let File { format, scale, devices } = unpacked(&path, &files(&path)?)?;
        if format != 1 || window == 0 || stride == 0 {
            return Err(bad(format!(
                "{path}: format {format}, window {window}, stride {stride}; expected format 1 and positive numbers"
            )));
        }
        if let Some(kind) = tuning.iter().find(|kind| !held_out.contains(kind)) {
            return Err(bad(format!("kind {kind} tunes, but is not held out")));
        }
        let mut clients = Self { training: Vec::new(), tuning: Vec::new(), judging: Vec::new() };
        for Device { kind, series } in devices {
            let mut windows = Windows::new();
            for packed in &series {
                let values = numbers(packed, scale, &path)?;
                windows.extend(values.windows(window).step_by(stride).map(<[f32]>::to_vec));
            }
            let part = match (tuning.contains(&kind), held_out.contains(&kind)) {
                (true, _) => &mut clients.tuning,
                (_, true) => &mut clients.judging,
                _ => &mut clients.training,
            };
            part.push(windows);
        }
        match clients.training.iter().any(|windows| !windows.is_empty()) {
            true => Ok(clients),
            false => Err(bad(format!("{path} has no device that trains on a window of {window}"))),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.training.len()
    }

    pub(super) fn client(&self, number: usize, seed: u64) -> Result<Person, Problem> {
        let number = number % self.training.len();
        person(&self.training[number], generator(seed, number))
    }

    pub(super) fn held_out(&self, part: Part, seed: u64) -> Result<Vec<Person>, Problem> {
        let devices = match part {
            Part::Tuning => &self.tuning,
            Part::Judging => &self.judging,
        };
        devices.iter().map(|own| person(own, seed)).collect()
    }
}

fn person(windows: &Windows, seed: u64) -> Result<Person, Problem> {
    let ordinary = |values: &Vec<f32>| {
        let input = Input::tensor(vec![values.len(), 1], values.clone())?;
        Ok(Labelled { input, target: Target::Values(vec![0.0]) })
    };
    let mut examples = windows.iter().map(ordinary).collect::<Result<Vec<_>, Problem>>()?;
    let mut draws = SplitMix::new(seed);
    // Windows follow each other in time; those that judge shall not all be the last ones.
    draws.shuffle(&mut examples);
    Ok(Person::new(examples, draws.next_u64()))
}
