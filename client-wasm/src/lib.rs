//! The Backstitch client in the browser: wasm-bindgen exports and the browser's port. No decisions are made here.
//!
//! ```js
//! import init, { Client } from "./wasm/backstitch.js";     // wasm-bindgen --target web
//! await init();
//! const client = await Client.open(url, { cost_limit_ms: 20 }, (progress) => …);
//! const result = await client.run(input, { patches: "auto", compare: true });
//! await client.learn(input, "Ankle boot");                 // a label or its index
//! await client.train({ epochs: 10 }, (progress) => …);     // pauses between steps, so that runs go on
//! client.graph(); client.library(); await client.examples(); await client.samples();
//! await client.preview(); await client.consent(true); await client.contribute(); await client.privacy();
//! client.memory(); await client.refresh(); await client.forget(); client.close();
//! ```
//! All types: `types.d.ts` for what goes in, `web/packages/client/src/results.ts` for what comes out. Every failure is
//! thrown as `{ code, message, hint }`.
//!
//! Two workers: `const pending = client.begin(input)` runs the first segment,
//! `analyse(input, library.preprocessing)` runs in the other worker meanwhile, and
//! `client.finish(pending, features, options)` goes on; `client.overlap_pays(handover_ms)` says from measured times
//! whether that is worth two messages.

#![deny(clippy::unwrap_used, clippy::expect_used)]
// The browser crate is built for wasm32 alone; elsewhere it is empty, so that the workspace still checks.
#![cfg(target_arch = "wasm32")]

mod client;
mod convert;
mod port;
mod storage;

use wasm_bindgen::prelude::wasm_bindgen;

pub use client::{Client, Pending, Stream, analyse};

#[wasm_bindgen(typescript_custom_section)]
const GIVEN: &str = include_str!("types.d.ts");

/// Those of the package, so that both say the same.
#[wasm_bindgen(typescript_custom_section)]
const RESULTS: &str = include_str!("../../web/packages/client/src/results.ts");

#[wasm_bindgen(typescript_custom_section)]
const MEMORY: &str = include_str!("../../web/packages/client/src/memory.ts");

/// Runs once when the module is instantiated: panics are printed with their place.
#[wasm_bindgen(start)]
pub fn start() {
    console_error_panic_hook::set_once();
}
