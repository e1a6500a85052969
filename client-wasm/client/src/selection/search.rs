//! The exact search: depth first over the candidates, pruned by what the rest could still gain.

use std::cmp::Ordering;

/// An eligible candidate: its gain is positive.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Its bit in the result.
    pub(super) index: usize,
    pub(super) gain: f64,
    pub(super) ms: f64,
    pub(super) bytes: u64,
    /// Bits of candidates that exclude it.
    pub(super) rivals: u32,
}

/// What is left to spend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub(super) ms: f64,
    pub(super) bytes: u64,
}

/// A set with its sums, which are taken in index order, so that equal sets have equal sums.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Found {
    pub(super) set: u32,
    pub(super) gain: f64,
    pub(super) ms: f64,
}

impl Found {
    /// The set of these items, or `None` where it breaks the limit or holds rivals.
    pub(super) fn of(items: &[Item], set: u32, left: Left) -> Option<Self> {
        let mut members: Vec<&Item> = items.iter().filter(|i| set & (1 << i.index) != 0).collect();
        members.sort_by_key(|i| i.index);
        let (gain, ms) = members.iter().fold((0.0, 0.0), |(g, m), i| (g + i.gain, m + i.ms));
        let bytes = members.iter().try_fold(0u64, |sum, i| sum.checked_add(i.bytes));
        // The empty set always stands: the primary runs even where it alone breaks the limit.
        let fits = set == 0 || (ms <= left.ms && bytes.is_some_and(|b| b <= left.bytes));
        let peaceful = members.iter().all(|i| i.rivals & set == 0);
        (fits && peaceful).then_some(Self { set, gain, ms })
    }

    /// The total order: more gain, less time, fewer patches, the earlier patches.
    pub(super) fn better(&self, other: &Self) -> bool {
        let order = self
            .gain
            .total_cmp(&other.gain)
            .then(other.ms.total_cmp(&self.ms))
            .then(other.set.count_ones().cmp(&self.set.count_ones()))
            .then(self.set.reverse_bits().cmp(&other.set.reverse_bits()));
        order == Ordering::Greater
    }
}

/// The best set, as bits of the items' indices.
pub(super) fn best(items: &[Item], left: Left) -> u32 {
    let all = items.iter().fold(0, |set, item| set | 1 << item.index);
    if let Some(found) = Found::of(items, all, left) {
        // Every gain is positive: where all fit, all are taken.
        return found.set;
    }
    let mut order = items.to_vec();
    // Dense first, so that a good set is found early and the bound bites.
    let density = |i: &Item| i.gain / i.ms.max(1e-9);
    order.sort_by(|a, b| density(b).total_cmp(&density(a)).then(a.index.cmp(&b.index)));
    // Time that later items could give back; time is only ever returned by replacing something dearer.
    let mut returned = vec![0.0; order.len() + 1];
    for (i, item) in order.iter().enumerate().rev() {
        returned[i] = returned[i + 1] + item.ms.min(0.0);
    }
    let mut search = Search { items, order, returned, left, best: Found::default() };
    search.descend(0, Partial::default());
    search.best.set
}

#[derive(Clone, Copy, Default)]
struct Partial {
    set: u32,
    excluded: u32,
    gain: f64,
    ms: f64,
    bytes: u64,
}

struct Search<'a> {
    items: &'a [Item],
    order: Vec<Item>,
    returned: Vec<f64>,
    left: Left,
    best: Found,
}

impl Search<'_> {
    fn descend(&mut self, depth: usize, partial: Partial) {
        /// Sums of another order differ in the last bits; the final comparison is exact.
        const SLACK: f64 = 1e-9;
        if depth == self.order.len() {
            if let Some(found) = Found::of(self.items, partial.set, self.left)
                && found.better(&self.best)
            {
                self.best = found;
            }
            return;
        }
        if partial.gain + self.bound(depth, &partial) < self.best.gain - SLACK {
            return;
        }
        let item = self.order[depth].clone();
        let ms = partial.ms + item.ms;
        let bytes = partial.bytes.saturating_add(item.bytes);
        let fits =
            ms + self.returned[depth + 1] <= self.left.ms + SLACK && bytes <= self.left.bytes;
        if fits && partial.excluded & (1 << item.index) == 0 {
            let with = Partial {
                set: partial.set | 1 << item.index,
                excluded: partial.excluded | item.rivals,
                gain: partial.gain + item.gain,
                ms,
                bytes,
            };
            self.descend(depth + 1, with);
        }
        self.descend(depth + 1, partial);
    }

    /// Never below what the rest can gain: the fractional knapsack over time (Dantzig 1957).
    fn bound(&self, depth: usize, partial: &Partial) -> f64 {
        let mut room = self.left.ms - partial.ms - self.returned[depth];
        let mut gain = 0.0;
        for item in &self.order[depth..] {
            if partial.excluded & (1 << item.index) != 0 {
                continue;
            }
            let ms = item.ms.max(0.0);
            if ms <= room {
                room -= ms;
                gain += item.gain;
            } else {
                return gain + item.gain * (room.max(0.0) / ms);
            }
        }
        gain
    }
}
