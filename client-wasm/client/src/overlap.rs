//! Whether to analyse an input while the primary's first segment already runs: decided by what both take here.

use std::thread;

/// Saved milliseconds below this are not worth the trouble.
const WORTHWHILE_MS: f64 = 0.05;

/// Runs after which the analysis is measured alone again.
const MEASURE_EVERY: u32 = 32;

/// Keeps what is needed for the decision.
#[derive(Clone, Copy, Debug)]
pub struct Overlap {
    /// What handing work to another thread and back takes; infinite where there are no threads.
    handover_ms: f64,
    /// Share of recent runs whose first segment was of use, because no chosen patch changed its input.
    kept: f64,
    runs: u32,
}

impl Overlap {
    /// Measures what another thread costs here.
    pub fn measure(clock: &dyn Fn() -> f64) -> Self {
        let began = clock();
        let handover_ms = match beside(|| (), || ()) {
            Some(_) => (clock() - began).max(0.0),
            None => f64::INFINITY,
        };
        Self { handover_ms, kept: 1.0, runs: 0 }
    }

    /// Whether working side by side is expected to save time. `certain` says that the first segment's result is of
    /// use whatever is selected, because the primary alone is asked for too.
    pub fn pays(&mut self, analysis_ms: f64, segment_ms: f64, certain: bool) -> bool {
        self.runs = self.runs.wrapping_add(1);
        let share = if certain { 1.0 } else { self.kept };
        // What is started in vain costs the whole segment.
        let saved = share * analysis_ms.min(segment_ms) - (1.0 - share) * segment_ms;
        saved - self.handover_ms > WORTHWHILE_MS && !self.runs.is_multiple_of(MEASURE_EVERY)
    }

    /// Whether it pays when the handover takes this long, as between two workers of a page.
    pub fn pays_for(&self, analysis_ms: f64, segment_ms: f64, handover_ms: f64) -> bool {
        let saved = self.kept * analysis_ms.min(segment_ms) - (1.0 - self.kept) * segment_ms;
        saved - handover_ms > WORTHWHILE_MS
    }

    /// Learns whether a run could use its unpatched first segment.
    pub fn observe(&mut self, kept: bool) {
        self.kept += 0.1 * (f64::from(u8::from(kept)) - self.kept);
    }
}

/// Runs `other` on another thread while `own` runs on this one; `None` where no thread can be made, and then
/// nothing has run.
pub fn beside<A: Send, B>(
    other: impl FnOnce() -> A + Send,
    own: impl FnOnce() -> B,
) -> Option<(A, B)> {
    thread::scope(|scope| {
        let handle = thread::Builder::new().spawn_scoped(scope, other).ok()?;
        let own = own();
        match handle.join() {
            Ok(other) => Some((other, own)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_pays_where_both_are_long_and_the_start_is_of_use() {
        let mut overlap = Overlap { handover_ms: 0.1, kept: 1.0, runs: 0 };
        assert!(overlap.pays(2.0, 5.0, false));
        assert!(!overlap.pays(0.05, 5.0, false));
        assert!(!overlap.pays(2.0, 0.05, false));
        (0..20).for_each(|_| overlap.observe(false));
        assert!(!overlap.pays(2.0, 5.0, false));
        assert!(overlap.pays(2.0, 5.0, true));
        assert!(!Overlap { handover_ms: f64::INFINITY, kept: 1.0, runs: 0 }.pays(9e9, 9e9, true));
    }

    #[test]
    fn two_things_run_side_by_side() {
        assert_eq!(beside(|| 1, || 2), Some((1, 2)));
    }
}
