//! The clip under a million updates, natively. The browser's twin is `client-wasm/tests/clip.rs`.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends it")]

mod clip_cases;

#[test]
fn a_million_updates_are_refused_or_within_the_bound_to_the_same_bits() {
    let tally = clip_cases::run(clip_cases::CASES);
    assert!(tally.refused > 10_000 && tally.clipped > 100_000 && tally.kept > 100_000, "{tally:?}");
    assert_eq!(tally.digest, clip_cases::DIGEST, "{tally:?}");
}
