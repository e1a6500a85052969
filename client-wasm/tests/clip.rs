//! The clip under a million updates in a browser: refused or within the bound, to the bits of the native test in
//! `server/protocol/tests/clip.rs`.

#![cfg(target_arch = "wasm32")]
#![allow(clippy::unwrap_used, reason = "a failed step of a test ends it")]

use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

#[path = "../../server/protocol/tests/clip_cases/mod.rs"]
mod clip_cases;

wasm_bindgen_test_configure!(run_in_dedicated_worker);

#[wasm_bindgen_test]
fn a_million_updates_clip_to_the_bits_of_the_native_build() {
    let tally = clip_cases::run(clip_cases::CASES);
    assert_eq!(tally.digest, clip_cases::DIGEST, "{tally:?}");
}
