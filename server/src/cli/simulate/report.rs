//! What a simulation says: a line per round, and all of it as JSON.

use serde::Serialize;

use super::setting::{Opened, Setting};

/// How a round was filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Round {
    /// 0 before the first.
    #[serde(rename = "round")]
    pub(super) number: u64,
    pub(super) goal: u32,
    /// Updates in the mean.
    pub(super) contributed: u32,
    /// Of these, shortened to the clip norm.
    pub(super) clipped: u32,
    /// Clients who kept an update to themselves.
    pub(super) kept_back: u32,
    /// ε of the worst-placed client after it; none without privacy.
    pub(super) epsilon: Option<f64>,
}

/// A mean difference to the shipped weights on the same examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Change {
    pub(super) mean: f64,
    /// 95 % interval, by the paired bootstrap over held-out clients.
    pub(super) ci95: [f64; 2],
}

/// A round and the version that came of it, on held-out clients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Line {
    #[serde(flatten)]
    pub(super) round: Round,
    /// None where the answers are no classes.
    pub(super) accuracy: Option<f64>,
    pub(super) loss: f64,
    pub(super) accuracy_gain: Option<Change>,
    pub(super) loss_change: Change,
}

/// A whole simulation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    library: String,
    task: String,
    /// What one client stands for.
    unit: String,
    /// What the held-out clients are for.
    part: String,
    parameters: u32,
    clients: usize,
    held_out_clients: usize,
    held_out_examples: usize,
    seed: u64,
    privacy: Option<Privacy>,
    pub(super) rounds: Vec<Line>,
    /// Why it ended before the last round, if so.
    ended: Option<String>,
    #[serde(skip)]
    talks: bool,
}

/// What is promised to each client.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Privacy {
    clip_norm: f64,
    noise_multiplier: f64,
    epsilon: f64,
    delta: f64,
    max_participations: u32,
}

impl Report {
    pub(super) fn begin(setting: &Setting, opened: &Opened, held_out: (usize, usize)) -> Self {
        let terms = &setting.terms;
        let privacy = setting.private.then(|| Privacy {
            clip_norm: terms.clip_norm.value(),
            noise_multiplier: terms.noise_multiplier.value(),
            epsilon: terms.epsilon.value(),
            delta: terms.delta.value(),
            max_participations: terms.max_participations,
        });
        let report = Self {
            library: setting.library.to_string(),
            task: terms.name.to_string(),
            unit: setting.population.unit().to_owned(),
            part: setting.part.to_string(),
            parameters: opened.task.parameters,
            clients: setting.clients,
            held_out_clients: held_out.0,
            held_out_examples: held_out.1,
            seed: setting.seed,
            privacy,
            rounds: Vec::new(),
            ended: None,
            talks: setting.talks,
        };
        report.head();
        report
    }

    fn head(&self) {
        if !self.talks {
            return;
        }
        println!(
            "{}.{}: {} parameters, {} clients, {} on {} examples of {} others",
            self.library,
            self.task,
            self.parameters,
            self.clients,
            self.part,
            self.held_out_examples,
            self.held_out_clients
        );
        println!("a client is {}", self.unit);
        println!(
            "{:>5} {:>9} {:>24} {:>8} {:>26} {:>6} {:>6} {:>8} {:>10}",
            "round",
            "accuracy",
            "gain, points (95 %)",
            "loss",
            "change (95 %)",
            "ε",
            "sent",
            "clipped",
            "kept back"
        );
    }

    pub(super) fn push(&mut self, line: Line) {
        if self.talks {
            let Line { round, accuracy, loss, accuracy_gain: gain, loss_change: change } = &line;
            let points = |share: f64| 100.0 * share;
            let none = || "–".to_owned();
            println!(
                "{:>5} {:>9} {:>24} {:>8.4} {:>26} {:>6} {:>6} {:>8} {:>10}",
                round.number,
                accuracy.map_or_else(none, |share| format!("{:.2} %", points(share))),
                gain.map_or_else(none, |gain| {
                    let [low, high] = gain.ci95.map(points);
                    format!("{:+.2} ({low:+.2} to {high:+.2})", points(gain.mean))
                }),
                loss,
                format!("{:+.4} ({:+.4} to {:+.4})", change.mean, change.ci95[0], change.ci95[1]),
                round.epsilon.map_or_else(none, |epsilon| format!("{epsilon:.2}")),
                round.contributed,
                round.clipped,
                round.kept_back
            );
        }
        self.rounds.push(line);
    }

    /// Ends early.
    pub(super) fn end(&mut self, reason: &str) {
        self.ended = Some(reason.to_owned());
    }

    /// Whether the newest line is as good as was wished.
    pub(super) fn has_reached(&self, wish: Option<f64>) -> bool {
        let newest = self.rounds.last().and_then(|line| line.accuracy);
        wish.zip(newest).is_some_and(|(wish, newest)| newest >= wish)
    }

    /// One sentence.
    pub(super) fn summary(&self) -> String {
        let (Some(first), Some(last)) = (self.rounds.first(), self.rounds.last()) else {
            return "nothing was simulated".to_owned();
        };
        let ended = self.ended.as_ref().map(|why| format!("; ended early: {why}"));
        let change = match (first.accuracy, last.accuracy) {
            (Some(before), Some(after)) => {
                format!("accuracy {:.2} % → {:.2} %", 100.0 * before, 100.0 * after)
            }
            _ => format!("loss {:.4} → {:.4}", first.loss, last.loss),
        };
        let rounds = self.rounds.len() - 1;
        format!("held-out {change} in {rounds} rounds{}", ended.unwrap_or_default())
    }
}
