//! Clients with windows of recordings: one session of one person each, with the sensor turned in the session's own way.

use std::collections::BTreeMap;

use backstitch_client::input::Input;
use backstitch_client::random::SplitMix;
use backstitch_protocol::Problem;
use serde::Deserialize;

use super::{Files, Part, bad, generator, numbers, unpacked};
use crate::node::Labelled;
use crate::person::Person;
use crate::sampling::normal;

/// Axes of one sensor.
const AXES: usize = 3;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    /// Gzipped JSON.
    file: String,
    /// Equal parts in time of each recording: the sessions of one person and arm.
    sessions: usize,
    /// Moments of a window, and from one to the next.
    window: usize,
    stride: usize,
    turn: Turn,
    /// Of the people held out, those who only choose settings.
    #[serde(default)]
    tuning: Vec<u32>,
}

/// How a sensor of three axes sits in a session: turned about its first axis by a normal number of degrees.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    degrees: f64,
    between_sessions: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    channels: usize,
    scale: f32,
    /// People who never train.
    held_out: Vec<u32>,
    recordings: Vec<Recording>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recording {
    person: u32,
    arm: u32,
    label: usize,
    /// Base64 of little-endian 16-bit integers, moment by moment.
    values: String,
}

/// Windows of one session as they were recorded, [window · channels] each, with their classes.
type Session = Vec<(Vec<f32>, usize)>;

pub(super) struct RecordingClients {
    training: Vec<Session>,
    tuning: Vec<Session>,
    judging: Vec<Session>,
    shape: Vec<usize>,
    turn: Turn,
}

impl RecordingClients {
    pub(super) fn read(described: Description, files: &Files<'_>) -> Result<Self, Problem> {
        let path = &described.file;
        let file: File = unpacked(path, &files(path)?)?;
        let Description { sessions, window, stride, turn, tuning, .. } = described;
        if file.format != 1 || file.channels == 0 || !file.channels.is_multiple_of(AXES) {
            return Err(bad(format!("{path} is not format 1 with sensors of {AXES} axes")));
        }
        if let Some(trains) = tuning.iter().find(|person| !file.held_out.contains(person)) {
            return Err(bad(format!(
                "tuning names person {trains}, whom {path} does not hold out"
            )));
        }
        if sessions == 0 || window == 0 || stride == 0 {
            return Err(bad("sessions, window and stride must be at least 1".to_owned()));
        }
        let mut found: BTreeMap<(u32, u32, usize), Session> = BTreeMap::new();
        for recording in &file.recordings {
            let moments = numbers(&recording.values, file.scale, path)?;
            let length = moments.len() / file.channels / sessions;
            for session in 0..sessions {
                let own = found.entry((recording.person, recording.arm, session)).or_default();
                let part = &moments[session * length * file.channels..][..length * file.channels];
                for start in (0..(length + 1).saturating_sub(window)).step_by(stride) {
                    let values = &part[start * file.channels..][..window * file.channels];
                    own.push((values.to_vec(), recording.label));
                }
            }
        }
        let found = found.into_iter().filter(|(_, session)| !session.is_empty());
        let (held_out, training): (Vec<_>, Vec<_>) =
            found.partition(|((person, ..), _)| file.held_out.contains(person));
        let (tuning, judging): (Vec<_>, Vec<_>) =
            held_out.into_iter().partition(|((person, ..), _)| tuning.contains(person));
        let sessions = |found: Vec<(_, Session)>| found.into_iter().map(|(_, own)| own).collect();
        match training.is_empty() {
            true => Err(bad(format!("{path} has no session that trains"))),
            false => Ok(Self {
                training: sessions(training),
                tuning: sessions(tuning),
                judging: sessions(judging),
                shape: vec![window, file.channels],
                turn,
            }),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.training.len()
    }

    pub(super) fn client(&self, number: usize, seed: u64) -> Result<Person, Problem> {
        // Who comes again is the same session, with the sensor as it sat.
        let number = number % self.training.len();
        self.person(&self.training[number], generator(seed, number))
    }

    pub(super) fn held_out(&self, part: Part, seed: u64) -> Result<Vec<Person>, Problem> {
        let (sessions, seed) = match part {
            Part::Tuning => (&self.tuning, !seed.rotate_left(32)),
            Part::Judging => (&self.judging, !seed),
        };
        let sessions = sessions.iter().enumerate();
        sessions.map(|(at, own)| self.person(own, generator(seed, at))).collect()
    }

    fn person(&self, session: &Session, seed: u64) -> Result<Person, Problem> {
        let mut draws = SplitMix::new(seed);
        let degrees = self.turn.degrees + self.turn.between_sessions * normal(&mut draws);
        let mut examples = Vec::with_capacity(session.len());
        for (values, class) in session {
            let input = Input::tensor(self.shape.clone(), turned(values, degrees))?;
            examples.push(Labelled::new(input, *class));
        }
        // Recordings follow each other by class; a device meets them mixed.
        draws.shuffle(&mut examples);
        Ok(Person::new(examples, draws.next_u64()))
    }
}

/// Every sensor's second and third axis, turned about the first.
fn turned(values: &[f32], degrees: f64) -> Vec<f32> {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (sin, cos) = (sin as f32, cos as f32);
    let turn = |&[x, y, z]: &[f32; AXES]| [x, cos * y - sin * z, sin * y + cos * z];
    values.as_chunks::<AXES>().0.iter().flat_map(turn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_moves_the_second_axis_to_the_third() {
        let turned = turned(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 90.0);
        let expected = [1.0, -3.0, 2.0, 4.0, -6.0, 5.0];
        assert!(turned.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{turned:?}");
    }
}
