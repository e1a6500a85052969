//! Federated averaging as published, without privacy (McMahan et al. 2017, algorithm 1): to compare with.

use backstitch_client::random::SplitMix;
use tokio::runtime::Handle;

use super::devices::{Material, in_parallel, trained};
use super::judge::Judge;
use super::report::{Report, Round};
use super::setting::{Opened, Setting};
use super::stage::Stage;
use crate::failure::Result;

/// A client and its examples, prepared on its first turn.
struct Turn<'a> {
    number: usize,
    material: &'a mut Option<Material>,
}

/// Averages the clients' weights, each weighed by its examples.
pub(super) fn run(setting: &Setting, runtime: &Handle) -> Result<Report> {
    let stage = Stage::open(setting, runtime)?;
    let mut opened = Opened::of(&stage.onlooker(setting)?, setting)?;
    let judge = Judge::new(setting, &opened)?;
    let mut report = Report::begin(setting, &opened, judge.examples());
    report.push(judge.round(Round::default(), &opened.weights)?);
    let mut materials: Vec<Option<Material>> = vec![None; setting.clients];
    let mut draws = SplitMix::new(setting.seed);
    let cohort = setting.terms.goal;
    for number in 1..=setting.rounds {
        let mut order: Vec<usize> = (0..setting.clients).collect();
        draws.shuffle(&mut order);
        order.truncate(cohort as usize);
        let mut turns: Vec<Turn<'_>> = materials
            .iter_mut()
            .enumerate()
            .filter(|(number, _)| order.contains(number))
            .map(|(number, material)| Turn { number, material })
            .collect();
        let updates = in_parallel(&mut turns, |turn| turn.train(setting, &opened, number));
        opened.weights = mean(&updates.into_iter().collect::<Result<Vec<_>>>()?);
        let round = Round { number, goal: cohort, contributed: cohort, ..Round::default() };
        report.push(judge.round(round, &opened.weights)?);
        if report.has_reached(setting.until) {
            break;
        }
    }
    stage.close();
    Ok(report)
}

impl Turn<'_> {
    /// Examples of this client, and its weights after training on all of them.
    fn train(
        &mut self,
        setting: &Setting,
        opened: &Opened,
        round: u64,
    ) -> Result<(usize, Vec<Vec<f32>>)> {
        if self.material.is_none() {
            let person = setting.population.client(self.number, setting.seed)?;
            *self.material = Some(Material::of(&person, opened)?);
        }
        let examples = self.material.as_ref().map(Material::all).unwrap_or_default();
        let seed = setting.seed ^ round.rotate_left(40) ^ (self.number as u64).rotate_left(20);
        let count = examples.len();
        Ok((count, trained(&opened.trainer, examples, &opened.weights, seed)?))
    }
}

/// Σ nₖ·wₖ / Σ nₖ, summed in f64.
fn mean(updates: &[(usize, Vec<Vec<f32>>)]) -> Vec<Vec<f32>> {
    let total: f64 = updates.iter().map(|(count, _)| *count as f64).sum();
    let Some((_, first)) = updates.first() else { return Vec::new() };
    let tensor = |index: usize| {
        let mut sums = vec![0.0f64; first[index].len()];
        for (count, weights) in updates {
            let share = *count as f64 / total;
            sums.iter_mut().zip(&weights[index]).for_each(|(s, w)| *s += share * f64::from(*w));
        }
        sums.into_iter().map(|sum| sum as f32).collect()
    };
    (0..first.len()).map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_weigh_as_much_as_they_have_examples() {
        let updates = [(3, vec![vec![1.0, 0.0], vec![4.0]]), (1, vec![vec![5.0, 8.0], vec![0.0]])];
        assert_eq!(mean(&updates), [vec![2.0, 2.0], vec![3.0]]);
    }
}
