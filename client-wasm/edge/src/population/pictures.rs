//! Clients with labelled pictures: drawn with a mix of classes and a tilt of their own, or a whole set dealt out in
//! the ways of published experiments.

use backstitch_client::random::SplitMix;
use backstitch_protocol::Problem;
use serde::Deserialize;

use super::{Files, Part, bad, generator};
use crate::data::Pictures;
use crate::person::{Person, turned};
use crate::sampling::lognormal;

/// Pictures of a held-out client where the set is dealt out.
const JUDGING: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    /// idx files; gzipped where the name ends in `.gz`.
    images: String,
    labels: String,
    held_out: HeldOut,
    /// Of the pictures held out, how many, from the first, only choose settings.
    #[serde(default)]
    tuning: usize,
    split: Split,
}

/// Pictures that nobody trains on.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum HeldOut {
    /// The last ones of the set.
    Last(usize),
    /// Files of their own.
    Files { images: String, labels: String },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Split {
    /// People are drawn: about so many pictures each, a fifth more or less, the mix of classes from a symmetric
    /// Dirichlet distribution, tilted as [`crate::style::Style`] says.
    Tilted { examples: usize, concentration: f64 },
    /// The shuffled set in equal parts.
    Iid { clients: usize },
    /// The set sorted by class, cut into equal shards, so many to each client (McMahan et al. 2017, section 3).
    Shards { clients: usize, each: usize },
    /// Two neighbouring classes each, sizes by a log-normal distribution (Li et al. 2020, FedProx, appendix C.1).
    PowerLaw { clients: usize },
}

pub(super) struct PictureClients {
    training: Pictures,
    tuning: Pictures,
    judging: Pictures,
    split: Split,
}

impl PictureClients {
    pub(super) fn read(described: Description, files: &Files<'_>) -> Result<Self, Problem> {
        let Description { images, labels, held_out, tuning, split } = described;
        let read = |images: &str, labels: &str| Pictures::read(&files(images)?, &files(labels)?);
        let all = read(&images, &labels)?;
        let (training, held_out) = match held_out {
            HeldOut::Last(count) => {
                let first = all.len().saturating_sub(count);
                all.split(first)
            }
            HeldOut::Files { images, labels } => (all, read(&images, &labels)?),
        };
        let wanted = match split {
            Split::Tilted { examples, .. } => examples,
            Split::Shards { clients, each } => clients * each,
            Split::Iid { clients } | Split::PowerLaw { clients } => clients,
        };
        let (tuning, judging) = held_out.split(tuning);
        match wanted > 0 && training.len() >= wanted && judging.len() >= wanted.min(JUDGING) {
            true => Ok(Self { training, tuning, judging, split }),
            false => Err(bad(format!(
                "{} pictures to train and {} to judge are not enough for the clients",
                training.len(),
                judging.len()
            ))),
        }
    }

    pub(super) fn len(&self) -> Option<usize> {
        match self.split {
            Split::Tilted { .. } => None,
            Split::Iid { clients }
            | Split::Shards { clients, .. }
            | Split::PowerLaw { clients } => Some(clients),
        }
    }

    pub(super) fn client(&self, number: usize, seed: u64) -> Result<Person, Problem> {
        let (labels, own) = (self.training.labels(), generator(seed, number));
        let pictures = match self.split {
            Split::Tilted { examples, concentration } => {
                return tilted(&self.training, examples, concentration, own);
            }
            Split::Iid { clients } => dealt(&shuffled(labels.len(), seed), clients, number),
            Split::Shards { clients, each } => shards(labels, clients, each, number, seed),
            Split::PowerLaw { clients } => power_law(labels, clients, number, seed),
        };
        upright(&self.training, &pictures, own)
    }

    pub(super) fn held_out(&self, part: Part, seed: u64) -> Result<Vec<Person>, Problem> {
        let (held, seed) = match part {
            Part::Tuning => (&self.tuning, seed.rotate_left(32)),
            Part::Judging => (&self.judging, seed),
        };
        let all: Vec<usize> = (0..held.len()).collect();
        match self.split {
            Split::Tilted { examples, concentration } => (0..held.len() / examples)
                .map(|number| tilted(held, examples, concentration, generator(!seed, number)))
                .collect(),
            _ => all.chunks(JUDGING).map(|own| upright(held, own, seed)).collect(),
        }
    }
}

/// A person with about this many pictures.
fn tilted(
    pictures: &Pictures,
    examples: usize,
    concentration: f64,
    seed: u64,
) -> Result<Person, Problem> {
    let spread = examples / 5;
    let count = examples - spread + SplitMix::new(seed).below(2 * spread + 1);
    Person::draw(pictures, count, concentration, seed)
}

fn upright(pictures: &Pictures, own: &[usize], seed: u64) -> Result<Person, Problem> {
    let examples = own.iter().map(|index| turned(pictures, *index, 0.0));
    Ok(Person::new(examples.collect::<Result<_, _>>()?, seed))
}

fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    SplitMix::new(seed).shuffle(&mut order);
    order
}

/// One of `parts` equal parts.
fn dealt(all: &[usize], parts: usize, number: usize) -> Vec<usize> {
    let size = all.len() / parts;
    all[(number % parts) * size..][..size].to_vec()
}

fn shards(labels: &[u8], clients: usize, each: usize, number: usize, seed: u64) -> Vec<usize> {
    let mut sorted = shuffled(labels.len(), seed);
    sorted.sort_by_key(|index| labels[*index]);
    let size = labels.len() / (clients * each);
    let dealt = dealt(&shuffled(clients * each, seed ^ 1), clients, number);
    dealt.into_iter().flat_map(|shard| sorted[shard * size..][..size].iter().copied()).collect()
}

fn power_law(labels: &[u8], clients: usize, number: usize, seed: u64) -> Vec<usize> {
    const CLASSES: usize = 10;
    /// What everybody has of each of the two classes.
    const LEAST: usize = 5;
    let number = number % clients;
    let mut own = Vec::new();
    for place in 0..2 {
        let class = (number + place) % CLASSES;
        let members: Vec<usize> =
            (0..labels.len()).filter(|i| usize::from(labels[*i]) == class).collect();
        // Everybody who owns some of this class, in the same order for all of them.
        let owners = (0..clients).flat_map(|c| (0..2).map(move |p| (c, p)));
        let owners: Vec<(usize, usize)> =
            owners.filter(|(c, p)| (c + p) % CLASSES == class).collect();
        let mut draws = SplitMix::new(seed ^ class as u64);
        let weights: Vec<f64> = owners.iter().map(|_| lognormal(2.0, &mut draws)).collect();
        let spare = members.len().saturating_sub(LEAST * owners.len()) as f64;
        let total: f64 = weights.iter().sum();
        let sizes = weights.iter().map(|w| LEAST + (spare * w / total) as usize);
        let mut from = 0;
        for (owner, size) in owners.iter().zip(sizes) {
            if *owner == (number, place) {
                own.extend(members[from.min(members.len())..].iter().take(size));
            }
            from += size;
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Vec<u8> {
        (0..12_000).map(|i| (i % 10) as u8).collect()
    }

    fn classes(labels: &[u8], own: &[usize]) -> usize {
        let mut found: Vec<u8> = own.iter().map(|i| labels[*i]).collect();
        found.sort_unstable();
        found.dedup();
        found.len()
    }

    #[test]
    fn every_picture_is_dealt_once_and_shards_hold_few_classes() {
        let labels = labels();
        let check = |deal: &dyn Fn(usize) -> Vec<usize>, most_classes: usize| {
            let mut all = Vec::new();
            for client in 0..100 {
                let own = deal(client);
                assert!(classes(&labels, &own) <= most_classes);
                all.extend(own);
            }
            let dealt = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(dealt, all.len(), "a picture has two owners");
            dealt
        };
        assert_eq!(check(&|c| dealt(&shuffled(labels.len(), 1), 100, c), 10), 12_000);
        // A shard may lie across the border of two classes.
        assert_eq!(check(&|c| shards(&labels, 100, 2, c, 1), 4), 12_000);
        assert!(check(&|c| power_law(&labels, 100, c, 1), 2) > 11_000);
    }

    #[test]
    fn a_power_law_has_rich_and_poor() {
        let labels = labels();
        let mut sizes: Vec<usize> = (0..100).map(|c| power_law(&labels, 100, c, 1).len()).collect();
        sizes.sort_unstable();
        assert!(sizes[0] >= 10 && sizes[99] > 10 * sizes[50], "{sizes:?}");
    }
}
