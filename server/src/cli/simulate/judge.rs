//! How good weights are on clients that never train: the same examples under the shipped weights and under these.

use std::sync::Arc;

use backstitch_client::random::SplitMix;
use backstitch_client::training::{Activation, Judged, Trainer};
use backstitch_edge::population::FILE;
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;

use super::devices::{Material, in_parallel};
use super::report::{Change, Line, Round};
use super::setting::{Opened, Setting};
use crate::failure::Result;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 2000;

/// Held-out clients with what the shipped weights answer them.
pub(super) struct Judge {
    trainer: Arc<Trainer>,
    clients: Vec<Vec<Arc<Activation>>>,
    shipped: Vec<Vec<Judged>>,
    seed: u64,
}

/// Sums over one client: examples, change of right answers, change of loss.
struct Sums {
    count: f64,
    right: f64,
    loss: f64,
}

impl Judge {
    /// Prepares the held-out clients, and asks the weights that the library has now.
    pub(super) fn new(setting: &Setting, opened: &Opened) -> Result<Self> {
        let mut people = setting.population.held_out(setting.part, setting.seed)?;
        if people.is_empty() {
            return Err(Problem::new(
                Code::RequestInvalid,
                format!("the {FILE} of {} holds nobody out for {}", setting.source, setting.part),
            )
            .with_hint("docs/PATCHES.md shows how clients are held out"));
        }
        let materials = in_parallel(&mut people, |person| Material::of(person, opened));
        let materials = materials.into_iter().map(|made| Ok(made?.all()));
        let mut judge = Self {
            trainer: opened.trainer.clone(),
            clients: materials.collect::<Result<_>>()?,
            shipped: Vec::new(),
            seed: setting.seed,
        };
        judge.shipped = judge.answers(&opened.weights)?;
        Ok(judge)
    }

    /// Held-out clients, and their examples.
    pub(super) fn examples(&self) -> (usize, usize) {
        (self.clients.len(), self.clients.iter().map(Vec::len).sum())
    }

    fn answers(&self, weights: &[Vec<f32>]) -> Result<Vec<Vec<Judged>>> {
        let mut clients: Vec<&Vec<Arc<Activation>>> = self.clients.iter().collect();
        let judged = in_parallel(&mut clients, |client| {
            let examples: Vec<&Activation> = client.iter().map(|example| &**example).collect();
            self.trainer.judge(&examples, weights)
        });
        judged.into_iter().collect()
    }

    /// What a round came to.
    pub(super) fn round(&self, round: Round, weights: &[Vec<f32>]) -> Result<Line> {
        let now = self.answers(weights)?;
        let examples: f64 = now.iter().map(|client| client.len() as f64).sum();
        let all = || now.iter().flatten();
        let pairs = self.shipped.iter().zip(&now);
        let sums: Vec<Sums> = pairs.map(|(before, after)| Sums::of(before, after)).collect();
        let change = |of: fn(&Sums) -> f64| Change {
            mean: sums.iter().map(of).sum::<f64>() / examples,
            ci95: interval(&sums, of, self.seed),
        };
        let right = all().filter(|judged| judged.right).count() as f64 / examples;
        let named = self.trainer.names_classes();
        Ok(Line {
            accuracy: named.then_some(right),
            loss: all().map(|judged| judged.loss).sum::<f64>() / examples,
            accuracy_gain: named.then(|| change(|sums| sums.right)),
            loss_change: change(|sums| sums.loss),
            round,
        })
    }
}

impl Sums {
    fn of(before: &[Judged], after: &[Judged]) -> Self {
        let right = |judged: &Judged| f64::from(u8::from(judged.right));
        let pairs = || before.iter().zip(after);
        Self {
            count: after.len() as f64,
            right: pairs().map(|(b, a)| right(a) - right(b)).sum(),
            loss: pairs().map(|(b, a)| a.loss - b.loss).sum(),
        }
    }
}

/// The 95 % percentile interval of a mean over examples by the paired bootstrap over whole clients: examples of one
/// client are not independent (Field, Welsh 2007).
fn interval(sums: &[Sums], of: fn(&Sums) -> f64, seed: u64) -> [f64; 2] {
    let mut draws = SplitMix::new(seed);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let (mut total, mut count) = (0.0, 0.0);
            for _ in 0..sums.len() {
                let client = &sums[draws.below(sums.len())];
                (total, count) = (total + of(client), count + client.count);
            }
            total / count
        })
        .collect();
    means.sort_by(f64::total_cmp);
    [means[RESAMPLES / 40], means[RESAMPLES - 1 - RESAMPLES / 40]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_resampled_whole() {
        let sums = |gain: &dyn Fn(usize) -> f64| -> Vec<Sums> {
            (0..20).map(|i| Sums { count: 10.0, right: gain(i), loss: 0.0 }).collect()
        };
        let [low, high] = interval(&sums(&|_| 1.0), |s| s.right, 1);
        assert!((low - 0.1).abs() < 1e-12 && (high - 0.1).abs() < 1e-12, "{low} {high}");
        // One client in two gained everything: with 200 independent examples it would be ± 0.07.
        let [low, high] = interval(&sums(&|i| 10.0 * (i % 2) as f64), |s| s.right, 1);
        assert!(low < 0.35 && high > 0.65, "{low} {high}");
    }
}
