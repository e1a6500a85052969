//! Clients with labelled texts, as a file lists them.

use backstitch_client::input::Input;
use backstitch_protocol::Problem;
use serde::Deserialize;

use super::{Files, Part, bad, generator, unpacked};
use crate::node::Labelled;
use crate::person::Person;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    /// Gzipped JSON.
    file: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    clients: Vec<Client>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    name: String,
    held_out: bool,
    /// Of those held out, who only chooses settings.
    #[serde(default)]
    tunes: bool,
    /// Each a text and its class.
    examples: Vec<(String, usize)>,
}

pub(super) struct TextClients {
    training: Vec<Vec<Labelled>>,
    tuning: Vec<Vec<Labelled>>,
    judging: Vec<Vec<Labelled>>,
}

impl TextClients {
    pub(super) fn read(described: &Description, files: &Files<'_>) -> Result<Self, Problem> {
        let path = &described.file;
        let File { format, clients } = unpacked(path, &files(path)?)?;
        if format != 1 {
            return Err(bad(format!("{path}: format {format} is not 1")));
        }
        let (mut training, mut tuning, mut judging) = (Vec::new(), Vec::new(), Vec::new());
        for client in clients {
            let part = match (client.held_out, client.tunes) {
                (false, false) => &mut training,
                (true, true) => &mut tuning,
                (true, false) => &mut judging,
                (false, true) => {
                    return Err(bad(format!("{path}: {} trains and tunes", client.name)));
                }
            };
            let labelled = |(text, class)| Ok(Labelled::new(Input::text(text)?, class));
            let own = client.examples.into_iter().map(labelled).collect::<Result<_, Problem>>()?;
            part.push(own);
        }
        match training.is_empty() {
            true => Err(bad(format!("{path} has no client that trains"))),
            false => Ok(Self { training, tuning, judging }),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.training.len()
    }

    pub(super) fn client(&self, number: usize, seed: u64) -> Result<Person, Problem> {
        let own = self.training[number % self.training.len()].clone();
        Ok(Person::new(own, generator(seed, number)))
    }

    pub(super) fn held_out(&self, part: Part, seed: u64) -> Result<Vec<Person>, Problem> {
        let held_out = match part {
            Part::Tuning => &self.tuning,
            Part::Judging => &self.judging,
        };
        Ok(held_out.iter().map(|own| Person::new(own.clone(), seed)).collect())
    }
}
