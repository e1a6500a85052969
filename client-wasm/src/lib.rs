//! The Backstitch client in the browser: wasm-bindgen exports and the browser's port. No decisions are made here.
//!
//! ```js
//! import init, { Client } from "./wasm/backstitch.js";     // wasm-bindgen --target web
//! await init();
//! const client = await Client.open(url, { cost_limit_ms: 20 }, (progress) => …);
//! const result = await client.run(input, { patches: "auto", compare: true });
//! await client.learn(input, "Ankle boot");                 // a label or its index
//! await client.train({ epochs: 10 }, (progress) => …);     // pauses between steps, so that runs go on
//! client.examples(); client.graph(); client.library(); await client.samples();
//! await client.preview(); await client.consent(true); await client.contribute(); await client.privacy();
//! await client.refresh(); await client.forget(); client.close();
//! ```
//! All types: `types.d.ts`. Every failure is thrown as `{ code, message, hint }`.
//! Two workers: `const pending = client.begin(input)` runs the first segment, `analyse(input, library.preprocessing)`
//! runs in the other worker meanwhile, `client.finish(pending, features, options)` goes on; `client.overlap_pays()`
//! says from measured times whether that is worth a message.
