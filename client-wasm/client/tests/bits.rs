//! What must be the same bit for bit on every machine, natively; `client-wasm/tests/browser.rs` has the other half.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends it")]

mod fingerprint;

#[test]
fn clipping_and_framing_give_the_expected_bits() {
    assert_eq!(fingerprint::of_many_clipped_updates(), fingerprint::EXPECTED);
}
