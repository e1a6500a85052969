//! The exact search: both halves of the candidates are listed whole, and joined in one sweep (Horowitz, Sahni 1974,
//! Computing partitions with applications to the knapsack problem). 24 candidates make two lists of at most 4,096
//! sets, so the hardest library costs no more than twice the easiest.
//!
//! Gains and times are integers here: their sums do not depend on an order, and ties are ties on every machine.

use std::cmp::Reverse;

/// An eligible candidate: it gains, or it saves time.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Its bit in the result.
    pub(super) index: usize,
    /// Billionths.
    pub(super) gain: i64,
    /// Nanoseconds; negative where it replaces more than it costs.
    pub(super) ns: i64,
    pub(super) bytes: u64,
    /// Bits of candidates that exclude it.
    pub(super) rivals: u32,
}

/// What is left to spend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub(super) ns: i64,
    pub(super) bytes: u64,
}

/// Larger than any sum of 24 clamped numbers, and 24 of it still fit.
const MOST: f64 = 1e17;

/// A number in billionths, the finest that counts.
pub(super) fn billionths(value: f64) -> i64 {
    (value * 1e9).round().clamp(-MOST, MOST) as i64
}

/// Milliseconds in nanoseconds.
pub(super) fn nanoseconds(ms: f64) -> i64 {
    billionths(ms / 1000.0)
}

/// A set of candidates with its sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    gain: i64,
    ns: i64,
    bytes: u64,
    set: u32,
}

impl State {
    fn and(self, other: Self) -> Self {
        Self {
            gain: self.gain + other.gain,
            ns: self.ns + other.ns,
            bytes: self.bytes.saturating_add(other.bytes),
            set: self.set | other.set,
        }
    }

    /// The total order: more gain, less time, fewer patches, the earlier patches. For sets without a common member
    /// every part of it adds up, so the best partner of a set is the best one for itself.
    fn rank(&self) -> (i64, Reverse<i64>, Reverse<u32>, u32) {
        (self.gain, Reverse(self.ns), Reverse(self.set.count_ones()), self.set.reverse_bits())
    }

    fn better(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }
}

/// The best set, as bits of the items' indices. Where none keeps the limit of time, not even the primary alone, it is the
/// quickest.
pub(super) fn best(items: &[Item], left: Left) -> u32 {
    let found = best_within(items, left).unwrap_or_else(|| {
        let saving = items.iter().map(|item| Item { gain: -item.ns, ..item.clone() });
        let any = Left { ns: i64::MAX / 2, ..left };
        best_within(&saving.collect::<Vec<_>>(), any).unwrap_or_default()
    });
    found.set
}

fn best_within(items: &[Item], left: Left) -> Option<State> {
    // Time is only ever returned by replacing something dearer.
    let returned: i64 = items.iter().map(|item| item.ns.min(0)).sum();
    let room = Left { ns: left.ns.saturating_sub(returned), bytes: left.bytes };
    let weighed = items.iter().fold(0u64, |sum, item| sum.saturating_add(item.bytes)) > left.bytes;
    let [first, second] = halves(components(items)).map(|half| sets(&half, room, weighed));
    match weighed {
        true => join_within_bytes(&first, &second, left),
        false => join(&first, &second, left),
    }
}

/// The sets of allies among items that exclude one another, directly or through others; most are one item alone.
fn components(items: &[Item]) -> Vec<Vec<State>> {
    let mut rest: Vec<&Item> = items.iter().collect();
    let mut components = Vec::new();
    while let Some(start) = rest.pop() {
        let (mut members, mut rivals) = (vec![start], start.rivals);
        while let Some(at) = rest.iter().position(|item| rivals & (1 << item.index) != 0) {
            let item = rest.swap_remove(at);
            rivals |= item.rivals;
            members.push(item);
        }
        let mut allies = vec![State::default()];
        for item in members {
            let own =
                State { gain: item.gain, ns: item.ns, bytes: item.bytes, set: 1 << item.index };
            let joined: Vec<State> = allies
                .iter()
                .filter(|state| state.set & item.rivals == 0)
                .map(|state| state.and(own))
                .collect();
            allies.extend(joined);
        }
        components.push(allies);
    }
    components
}

/// Two groups of components with about equally many sets.
fn halves(mut components: Vec<Vec<State>>) -> [Vec<Vec<State>>; 2] {
    components.sort_by_key(|allies| Reverse(allies.len()));
    let (mut groups, mut sizes) = ([Vec::new(), Vec::new()], [1.0f64; 2]);
    for allies in components {
        let smaller = usize::from(sizes[1] < sizes[0]);
        sizes[smaller] *= allies.len() as f64;
        groups[smaller].push(allies);
    }
    groups
}

/// Every set of these components that may still fit, from the quickest to the slowest. Where bytes do not decide, a
/// set that is neither quicker nor better than another is left out.
fn sets(components: &[Vec<State>], room: Left, weighed: bool) -> Vec<State> {
    let fits = |state: &State| state.ns <= room.ns && state.bytes <= room.bytes;
    let mut all = vec![State::default()];
    for allies in components {
        let mut merged: Vec<State> = Vec::new();
        for ally in allies {
            let shifted = all.iter().map(|state| state.and(*ally)).filter(fits);
            merged = merge(&merged, shifted, weighed);
        }
        all = merged;
    }
    all
}

fn merge(one: &[State], other: impl Iterator<Item = State>, weighed: bool) -> Vec<State> {
    let mut merged: Vec<State> = Vec::with_capacity(2 * one.len() + 1);
    let mut push = |state: State| {
        if weighed || merged.last().is_none_or(|last| state.rank() > last.rank()) {
            merged.push(state);
        }
    };
    // Of equally quick sets the better one comes first, so that the others are left out.
    let order = |state: &State| (state.ns, Reverse(state.rank()));
    let mut one = one.iter().copied().peekable();
    for state in other {
        while let Some(next) = one.next_if(|next| order(next) <= order(&state)) {
            push(next);
        }
        push(state);
    }
    one.for_each(push);
    merged
}

/// The best union within the time that is left. Both lists are sorted, and better from set to set.
fn join(first: &[State], second: &[State], left: Left) -> Option<State> {
    let (mut best, mut within) = (None::<State>, 0);
    for state in first.iter().rev() {
        while second.get(within).is_some_and(|other| state.ns + other.ns <= left.ns) {
            within += 1;
        }
        if let Some(other) = second[..within].last() {
            let union = state.and(*other);
            best = Some(best.map_or(union, |best| best.better(union)));
        }
    }
    best
}

/// The same where bytes decide too: the best partners by bytes are kept in a Fenwick tree (Fenwick 1994).
fn join_within_bytes(first: &[State], second: &[State], left: Left) -> Option<State> {
    let mut weights: Vec<u64> = second.iter().map(|state| state.bytes).collect();
    weights.sort_unstable();
    weights.dedup();
    let mut tree: Vec<Option<State>> = vec![None; weights.len() + 1];
    let (mut best, mut within) = (None::<State>, 0);
    for state in first.iter().rev() {
        while let Some(other) = second.get(within).filter(|o| state.ns + o.ns <= left.ns) {
            let mut at = weights.partition_point(|bytes| *bytes < other.bytes) + 1;
            while let Some(slot) = tree.get_mut(at) {
                *slot = Some(slot.map_or(*other, |known| known.better(*other)));
                at += at & at.wrapping_neg();
            }
            within += 1;
        }
        let Some(bytes) = left.bytes.checked_sub(state.bytes) else { continue };
        let mut at = weights.partition_point(|weight| *weight <= bytes);
        while at > 0 {
            let union = tree[at].map(|other| state.and(other));
            best = best.zip(union).map(|(best, union)| best.better(union)).or(best).or(union);
            at &= at - 1;
        }
    }
    best
}
