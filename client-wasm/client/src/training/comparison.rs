//! Two sets of weights on the same examples: which is better, and is the difference more than chance?

use std::sync::Arc;

use backstitch_protocol::Problem;

use super::judging::Score;
use super::trainer::{Activation, Trainer};

/// Scores of both, and how sure the difference is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Of the weights before.
    pub before: Score,
    /// Of the weights after.
    pub after: Score,
    /// Mean of (loss after − loss before) over the examples.
    pub loss_change: f64,
    /// Its standard error; 0 for fewer than two examples.
    pub standard_error: f64,
}

impl Comparison {
    /// Runs every example under both.
    pub fn of(
        trainer: &Trainer,
        examples: &[Arc<Activation>],
        before: &[Vec<f32>],
        after: &[Vec<f32>],
    ) -> Result<Self, Problem> {
        let examples: Vec<&Activation> = examples.iter().map(|e| &**e).collect();
        let (old, new) = (trainer.judge(&examples, before)?, trainer.judge(&examples, after)?);
        let changes: Vec<f64> = old.iter().zip(&new).map(|(o, n)| n.loss - o.loss).collect();
        let (loss_change, standard_error) = mean_and_error(&changes);
        Ok(Self { before: Score::of(&old), after: Score::of(&new), loss_change, standard_error })
    }

    /// Better for the one who uses it: more right answers, or as many at a lower loss.
    pub fn is_better(&self) -> bool {
        self.after.is_better_than(&self.before)
    }

    /// Worse beyond chance: the loss rose by more than its standard error. An honest small update is noisy, and the
    /// mean of many such updates is what helps; one that is plainly wrong for its own maker helps nobody.
    pub fn is_plainly_worse(&self) -> bool {
        self.loss_change > self.standard_error
    }
}

/// The mean and the standard error of the mean.
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n.max(1.0);
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(changes: &[f64]) -> Comparison {
        let (loss_change, standard_error) = mean_and_error(changes);
        Comparison {
            before: Score::default(),
            after: Score::default(),
            loss_change,
            standard_error,
        }
    }

    #[test]
    fn chance_is_no_harm_and_harm_is_no_chance() {
        assert!(!comparison(&[0.5, -0.5, 0.1]).is_plainly_worse());
        assert!(comparison(&[0.5, 0.4, 0.6]).is_plainly_worse());
        assert!(comparison(&[0.1]).is_plainly_worse());
        assert!(!comparison(&[-0.1]).is_plainly_worse());
        let (mean, error) = mean_and_error(&[1.0, 3.0]);
        assert!((mean - 2.0).abs() < 1e-12 && (error - 1.0).abs() < 1e-12);
    }

    #[test]
    fn right_answers_come_before_the_loss() {
        let score = |accuracy, loss| Score { loss, accuracy, n: 8 };
        assert!(score(0.5, 2.1).is_better_than(&score(0.4, 1.6)));
        assert!(score(0.5, 1.5).is_better_than(&score(0.5, 1.6)));
        assert!(!score(0.5, 1.6).is_better_than(&score(0.5, 1.6)));
        assert!(!score(0.4, 0.1).is_better_than(&score(0.5, 1.6)));
    }
}
