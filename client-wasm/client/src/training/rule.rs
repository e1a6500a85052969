//! How a gradient moves the weights: momentum or Adam.

use backstitch_onnx::patch::Training;

/// Decay of Adam's mean of gradients.
const BETA1: f32 = 0.9;
/// Decay of Adam's mean of squares.
const BETA2: f32 = 0.999;
/// Keeps Adam's quotient finite.
const EPSILON: f32 = 1e-8;

/// A rule with what it remembers of former steps, per weight.
#[derive(Debug)]
pub(super) enum Rule {
    /// w ← w − η·v with v ← μ·v + g (Polyak 1964); plain gradient descent where μ is 0.
    Momentum { momentum: f32, velocity: Vec<Vec<f32>> },
    /// w ← w − η·m̂/(√v̂ + ε) (Kingma, Ba 2015, algorithm 1).
    Adam { mean: Vec<Vec<f32>>, square: Vec<Vec<f32>>, steps: i32 },
}

impl Rule {
    /// The rule of a manifest, for weights of these shapes.
    pub(super) fn of(training: &Training, weights: &[Vec<f32>]) -> Self {
        let zeros = || weights.iter().map(|w| vec![0.0; w.len()]).collect();
        match training.optimizer.as_deref() {
            Some("adam") => Self::Adam { mean: zeros(), square: zeros(), steps: 0 },
            _ => Self::Momentum { momentum: training.momentum.unwrap_or(0.0), velocity: zeros() },
        }
    }

    /// What it remembers, in an order of its own, and Adam's count of steps.
    pub(super) fn memory(&self) -> (Vec<&Vec<f32>>, i32) {
        match self {
            Self::Momentum { velocity, .. } => (velocity.iter().collect(), 0),
            Self::Adam { mean, square, steps } => (mean.iter().chain(square).collect(), *steps),
        }
    }

    /// Remembers what [`Rule::memory`] gave. The tensors have the right lengths.
    pub(super) fn remember(&mut self, mut memory: Vec<Vec<f32>>, count: i32) {
        match self {
            Self::Momentum { velocity, .. } => *velocity = memory,
            Self::Adam { mean, square, steps } => {
                *square = memory.split_off(mean.len());
                (*mean, *steps) = (memory, count);
            }
        }
    }

    /// Moves the weights against the gradient.
    pub(super) fn update(&mut self, weights: &mut [Vec<f32>], gradient: &[Vec<f32>], rate: f32) {
        match self {
            Self::Momentum { momentum, velocity } => {
                for ((weights, velocity), gradient) in
                    weights.iter_mut().zip(velocity).zip(gradient)
                {
                    for ((weight, speed), slope) in weights.iter_mut().zip(velocity).zip(gradient) {
                        *speed = *momentum * *speed + slope;
                        *weight -= rate * *speed;
                    }
                }
            }
            Self::Adam { mean, square, steps } => {
                *steps += 1;
                // Means of few steps are too near to 0.
                let (first, second) = (1.0 - BETA1.powi(*steps), 1.0 - BETA2.powi(*steps));
                let moments = mean.iter_mut().zip(square);
                for ((weights, (mean, square)), gradient) in
                    weights.iter_mut().zip(moments).zip(gradient)
                {
                    let moments = mean.iter_mut().zip(square);
                    for ((weight, (m, v)), slope) in weights.iter_mut().zip(moments).zip(gradient) {
                        *m = BETA1 * *m + (1.0 - BETA1) * slope;
                        *v = BETA2 * *v + (1.0 - BETA2) * slope * slope;
                        *weight -= rate * (*m / first) / ((*v / second).sqrt() + EPSILON);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training(optimizer: &str) -> Training {
        let json = serde_json::json!({"loss": "mean_squared_error", "learning_rate": 0.1, "batch": 1, "epochs": 1,
            "clip_norm": 1.0, "optimizer": optimizer, "momentum": 0.5});
        serde_json::from_value(json).unwrap()
    }

    /// Three steps down w², from w = 1, as PyTorch takes them with the same numbers.
    fn check(optimizer: &str, expected: [f32; 3]) {
        let mut weights = vec![vec![1.0f32]];
        let mut rule = Rule::of(&training(optimizer), &weights);
        for expected in expected {
            let gradient = vec![vec![2.0 * weights[0][0]]];
            rule.update(&mut weights, &gradient, 0.1);
            assert!(
                (weights[0][0] - expected).abs() < 1e-6,
                "{optimizer}: {weights:?}, not {expected}"
            );
        }
    }

    #[test]
    fn the_steps_are_those_of_pytorch() {
        check("sgd", [0.8, 0.54, 0.302]);
        check("adam", [0.9, 0.800_412_24, 0.701_586_3]);
    }
}
