//! Shifts of a series' level: the exact optimum of a penalised cost, found by pruned dynamic programming.

/// Points that the search looks at; longer series are averaged in blocks first.
const MAX_POINTS: usize = 512;

/// Fewest points between two changes.
const MIN_SEGMENT: usize = 2;

/// Changes of the level of standardised channels: the number of segment borders that minimises
/// Σ squared deviations from the segments' means + 3·channels·ln(n) per border (PELT, Killick et al. 2012).
pub(super) fn count(channels: &[Vec<f64>]) -> usize {
    let reduced: Vec<Vec<f64>> = channels.iter().map(|channel| averaged(channel)).collect();
    let n = reduced[0].len();
    if n < 2 * MIN_SEGMENT || reduced.iter().flatten().all(|v| *v == 0.0) {
        return 0;
    }
    let costs = Costs::of(&reduced);
    borders(&costs, n, 3.0 * channels.len() as f64 * (n as f64).ln())
}

fn averaged(channel: &[f64]) -> Vec<f64> {
    let block = channel.len().div_ceil(MAX_POINTS).max(1);
    channel.chunks(block).map(|part| part.iter().sum::<f64>() / part.len() as f64).collect()
}

/// Prefix sums, so that a segment's cost takes constant time.
struct Costs {
    sums: Vec<Vec<f64>>,
    squares: Vec<f64>,
}

impl Costs {
    fn of(channels: &[Vec<f64>]) -> Self {
        let prefix = |values: &mut dyn Iterator<Item = f64>| {
            let mut total = 0.0;
            let mut sums = vec![0.0];
            sums.extend(values.map(|v| {
                total += v;
                total
            }));
            sums
        };
        let n = channels[0].len();
        let square = |i: usize| channels.iter().map(|c| c[i] * c[i]).sum::<f64>();
        Self {
            sums: channels.iter().map(|c| prefix(&mut c.iter().copied())).collect(),
            squares: prefix(&mut (0..n).map(square)),
        }
    }

    /// Squared deviations of the points `start..end` from their mean.
    fn cost(&self, start: usize, end: usize) -> f64 {
        let sums = self.sums.iter().map(|s| (s[end] - s[start]).powi(2)).sum::<f64>();
        self.squares[end] - self.squares[start] - sums / (end - start) as f64
    }
}

fn borders(costs: &Costs, n: usize, penalty: f64) -> usize {
    // Of the points up to each: the least cost, and the borders that it takes.
    let mut best = vec![(f64::INFINITY, 0usize); n + 1];
    best[0] = (-penalty, 0);
    // Where the last segment may start, and whether that start can be forgotten.
    let mut starts = vec![(0, false)];
    for end in MIN_SEGMENT..=n {
        let before = |start: usize| best[start].0 + costs.cost(start, end);
        let found = starts.iter().map(|(start, _)| (before(*start), *start));
        let (cost, start) = found.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::INFINITY, 0));
        best[end] = (cost + penalty, best[start].1 + usize::from(start > 0));
        // A start that already loses by more than the penalty loses to a start here for ever; but a segment from
        // here has its least length only after the next step.
        starts.retain(|(_, lost)| !lost);
        for (start, lost) in &mut starts {
            *lost = best[*start].0 + costs.cost(*start, end) > best[end].0;
        }
        let next = end + 1 - MIN_SEGMENT;
        if best[next].0.is_finite() {
            starts.push((next, false));
        }
    }
    best[n].1
}
