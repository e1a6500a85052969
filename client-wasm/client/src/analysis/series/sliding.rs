//! The features of a window that slides over a series: what one more sample changes, not the whole window again.
//!
//! Level, spread, noise, trend and gaps follow every sample: sums and a median that samples enter and leave, O(log window)
//! for each. Rhythm and changes of level need the whole window; they are measured anew after every eighth of it, which
//! is O(log window) per sample too, and hold in between.

use std::collections::{BTreeMap, VecDeque};

use backstitch_protocol::Problem;

use super::{Channel, Line, MAX_STEPS, NORMAL_MAD, Series, feature_vector, residual, rhythm_of};
use crate::analysis::FeatureVector;
use crate::input::invalid;

/// Rhythm is measured anew when this part of the window is new.
const RHYTHM_PART: usize = 8;

/// A window over the newest samples of a series.
#[derive(Clone, Debug)]
pub struct Sliding {
    rate_hz: f64,
    window: usize,
    tracks: Vec<Track>,
    /// Moments so far.
    seen: usize,
    rhythm: Option<[(&'static str, f64); 5]>,
    /// Moments since the rhythm was measured.
    age: usize,
}

impl Sliding {
    /// A window of so many moments over `channels` channels. Refuses a window without samples and a rate that is not a
    /// positive number.
    pub fn new(channels: usize, rate_hz: f64, window: usize) -> Result<Self, Problem> {
        // The same checks as for a series that is given at once.
        Series::new(channels, rate_hz, vec![0.0; channels.saturating_mul(window.min(1))])?;
        let track = Track::new(window.min(MAX_STEPS));
        Ok(Self { rate_hz, window, tracks: vec![track; channels], seen: 0, rhythm: None, age: 0 })
    }

    /// Adds moments, oldest first, one row of channels after the other; NaN marks what is missing. Where a row is not
    /// whole or a number is infinite, nothing is added.
    pub fn push(&mut self, moments: &[f32]) -> Result<(), Problem> {
        if !moments.len().is_multiple_of(self.tracks.len()) {
            let detail = format!(
                "{} samples do not make rows of {} channels",
                moments.len(),
                self.tracks.len()
            );
            return Err(invalid(detail).with_hint("give one row per moment"));
        }
        if let Some(index) = moments.iter().position(|v| v.is_infinite()) {
            return Err(invalid(format!("element {index} is {}", moments[index])).with_hint(
                "replace infinity before asking the model; NaN marks a gap in a series",
            ));
        }
        for row in moments.chunks_exact(self.tracks.len()) {
            self.tracks.iter_mut().zip(row).for_each(|(track, value)| track.push(*value));
            self.seen += 1;
            self.age += 1;
        }
        Ok(())
    }

    /// The features of the newest window; `None` before there is a whole one.
    pub fn features(&mut self) -> Option<FeatureVector> {
        if self.seen < self.window {
            return None;
        }
        if self.age * RHYTHM_PART >= self.window || self.rhythm.is_none() {
            let rows: Vec<Channel> =
                self.tracks.iter().map(|track| Channel::of(&track.samples())).collect();
            self.rhythm = Some(rhythm_of(&rows, self.rate_hz));
            self.age = 0;
        }
        let lines: Vec<Line> = self.tracks.iter().map(Track::line).collect();
        Some(feature_vector(self.window, &lines, self.rhythm?))
    }

    /// Moments until the rhythm is measured anew.
    pub fn rhythm_due(&self) -> usize {
        self.window.div_ceil(RHYTHM_PART).saturating_sub(self.age)
    }
}

/// One channel's window.
#[derive(Clone, Debug)]
struct Track {
    window: usize,
    /// The samples of the window, oldest first.
    raw: VecDeque<f32>,
    /// What is not missing, by its place; places count from 0 and start anew with [`Track::rebase`].
    known: VecDeque<(usize, f64)>,
    /// The place of the next sample.
    next: usize,
    sums: Sums,
    residuals: Median,
}

/// Over the known samples and the straight lines between them: Σv, Σv² and Σ place·v.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    values: Precise,
    squares: Precise,
    moments: Precise,
}

impl Track {
    fn new(window: usize) -> Self {
        Self {
            window,
            raw: VecDeque::with_capacity(window + 1),
            known: VecDeque::new(),
            next: 0,
            sums: Sums::default(),
            residuals: Median::default(),
        }
    }

    fn push(&mut self, value: f32) {
        // Places stay so small that place times sample is exact.
        if self.next >= 4 * self.window.max(1024) {
            self.rebase();
        }
        self.raw.push_back(value);
        self.triple(self.raw.len().checked_sub(3), Median::insert);
        if value.is_finite() {
            self.enter(self.next, f64::from(value));
        }
        self.next += 1;
        if self.raw.len() > self.window {
            self.triple(Some(0), Median::remove);
            self.raw.pop_front();
            self.leave(self.next - self.window);
        }
    }

    /// Enters or removes the residual of the three samples from here, if there are three and none is missing.
    fn triple(&mut self, start: Option<usize>, change: fn(&mut Median, f64)) {
        let at = |i: usize| self.raw.get(i).copied().filter(|v| v.is_finite());
        let Some(start) = start else { return };
        if let (Some(a), Some(b), Some(c)) = (at(start), at(start + 1), at(start + 2)) {
            change(&mut self.residuals, residual(&[a, b, c]));
        }
    }

    fn enter(&mut self, place: usize, value: f64) {
        if let Some(before) = self.known.back() {
            self.sums.gap(*before, (place, value), 1.0);
        }
        self.sums.sample(place, value, 1.0);
        self.known.push_back((place, value));
    }

    /// Lets go of what is older than the window.
    fn leave(&mut self, first: usize) {
        while let Some((place, value)) = self.known.front().copied().filter(|(p, _)| *p < first) {
            self.known.pop_front();
            self.sums.sample(place, value, -1.0);
            if let Some(after) = self.known.front() {
                self.sums.gap((place, value), *after, -1.0);
            }
        }
    }

    /// Counts places from the window's first sample again, and adds everything up anew.
    fn rebase(&mut self) {
        let first = self.next - self.raw.len();
        self.next -= first;
        self.sums = Sums::default();
        for (place, value) in std::mem::take(&mut self.known) {
            self.enter(place - first, value);
        }
    }

    fn samples(&self) -> Vec<f32> {
        self.raw.iter().copied().collect()
    }

    /// What the whole window's filled samples say: known ones, lines between them, and level ends.
    fn line(&self) -> Line {
        let n = self.raw.len();
        let first = self.next - n;
        let mut sums = self.sums;
        if let (Some(head), Some(tail)) = (self.known.front(), self.known.back()) {
            sums.level(first, head.0, head.1);
            sums.level(tail.0 + 1, self.next, tail.1);
        }
        let count = n as f64;
        let level = sums.values.value() / count;
        // Σ(v − level)² = Σv² − (Σv)²/n, and Σ(i − middle)(v − level) = Σ place·v − (first + middle)·Σv.
        let squares = sums.squares.minus(sums.values.squared().over(count)).value().max(0.0);
        let middle = first as f64 + (count - 1.0) / 2.0;
        let across = sums.moments.minus(sums.values.times(middle)).value();
        let known = self.known.len();
        let noise = (2.0f64 / 3.0).sqrt() * self.residuals.value() / NORMAL_MAD;
        Line::of(n, level, squares, across, (n - known) as f64 / count, noise)
    }
}

impl Sums {
    fn sample(&mut self, place: usize, value: f64, sign: f64) {
        self.values.add(sign * value);
        self.squares.add(sign * value * value);
        self.moments.add(sign * place as f64 * value);
    }

    /// What lies strictly between two known samples, on the straight line v = start + rise·j/s: over its s − 1 samples,
    /// Σj = s(s−1)/2 and Σj² = s(s−1)(2s−1)/6.
    fn gap(&mut self, (from, start): (usize, f64), (to, end): (usize, f64), sign: f64) {
        if to - from < 2 {
            return;
        }
        let (steps, count) = ((to - from) as f64, sign * ((to - from) as f64 - 1.0));
        let rise = end - start;
        let values = Precise::product(count / 2.0, start).plus(Precise::product(count / 2.0, end));
        self.values = self.values.plus(values);
        let slanted = rise * rise * (2.0 * steps - 1.0) / (6.0 * steps);
        let square = Precise::product(start, start).plus(Precise::product(start, rise));
        self.squares = self.squares.plus(square.plus(Precise::of(slanted)).times(count));
        let inside = Precise::product(start, steps * count / 2.0)
            .plus(Precise::of(rise * count * (2.0 * steps - 1.0) / 6.0));
        self.moments = self.moments.plus(values.times(from as f64)).plus(inside);
    }

    /// Samples of one value at the places `from..to`.
    fn level(&mut self, from: usize, to: usize, value: f64) {
        let count = (to - from) as f64;
        self.values.add(count * value);
        self.squares = self.squares.plus(Precise::product(value, value).times(count));
        let places = count * ((from + to) as f64 - 1.0) / 2.0;
        self.moments = self.moments.plus(Precise::product(places, value));
    }
}

/// A sum in twice the precision, so that what has left the window leaves nothing behind (Dekker 1971; Knuth, TAOCP 2,
/// § 4.2.2).
#[derive(Clone, Copy, Debug, Default)]
struct Precise {
    high: f64,
    low: f64,
}

impl Precise {
    fn of(value: f64) -> Self {
        Self { high: value, low: 0.0 }
    }

    /// The exact product.
    fn product(a: f64, b: f64) -> Self {
        let high = a * b;
        Self { high, low: a.mul_add(b, -high) }
    }

    fn add(&mut self, value: f64) {
        let (sum, rest) = two_sum(self.high, value);
        let (high, low) = two_sum(sum, rest + self.low);
        *self = Self { high, low };
    }

    fn plus(mut self, other: Self) -> Self {
        self.add(other.high);
        self.add(other.low);
        self
    }

    fn minus(self, other: Self) -> Self {
        self.plus(Self { high: -other.high, low: -other.low })
    }

    fn times(self, factor: f64) -> Self {
        let mut product = Self::product(self.high, factor);
        product.add(self.low * factor);
        product
    }

    fn squared(self) -> Self {
        let mut square = self.times(self.high);
        square.add(self.high * self.low);
        square
    }

    fn over(self, divisor: f64) -> Self {
        let quotient = self.high / divisor;
        let rest = self.minus(Self::product(quotient, divisor)).value() / divisor;
        let (high, low) = two_sum(quotient, rest);
        Self { high, low }
    }

    fn value(self) -> f64 {
        self.high + self.low
    }
}

/// A sum and what it was rounded by.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

/// The median of numbers that come and go. None is negative, so that their bits have their order.
#[derive(Clone, Debug, Default)]
struct Median {
    lower: Half,
    upper: Half,
}

#[derive(Clone, Debug, Default)]
struct Half {
    counts: BTreeMap<u64, usize>,
    len: usize,
}

impl Median {
    fn insert(&mut self, value: f64) {
        let bits = value.to_bits();
        match self.lower.counts.last_key_value().is_some_and(|(top, _)| bits <= *top) {
            true => self.lower.insert(bits),
            false => self.upper.insert(bits),
        }
        self.balance();
    }

    fn remove(&mut self, value: f64) {
        let bits = value.to_bits();
        if !self.lower.remove(bits) {
            self.upper.remove(bits);
        }
        self.balance();
    }

    /// The lower half has as many as the upper one, or one more.
    fn balance(&mut self) {
        while self.lower.len > self.upper.len + 1 {
            let Some((top, _)) = self.lower.counts.last_key_value() else { return };
            let top = *top;
            self.lower.remove(top);
            self.upper.insert(top);
        }
        while self.lower.len < self.upper.len {
            let Some((bottom, _)) = self.upper.counts.first_key_value() else { return };
            let bottom = *bottom;
            self.upper.remove(bottom);
            self.lower.insert(bottom);
        }
    }

    /// The mean of the two middle values of an even number; 0 of none.
    fn value(&self) -> f64 {
        let of =
            |entry: Option<(&u64, &usize)>| entry.map_or(0.0, |(bits, _)| f64::from_bits(*bits));
        let below = of(self.lower.counts.last_key_value());
        match self.lower.len == self.upper.len {
            true => (below + of(self.upper.counts.first_key_value())) / 2.0,
            false => below,
        }
    }
}

impl Half {
    fn insert(&mut self, bits: u64) {
        *self.counts.entry(bits).or_insert(0) += 1;
        self.len += 1;
    }

    fn remove(&mut self, bits: u64) -> bool {
        let Some(count) = self.counts.get_mut(&bits) else { return false };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&bits);
        }
        self.len -= 1;
        true
    }
}
