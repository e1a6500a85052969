//! What the fuzz targets share.

use std::sync::Once;

/// Lets a panic inside the engine unwind, because the library turns it into an error. Every other panic is a finding
/// and ends the run. libFuzzer's own hook would end it in both cases.
pub fn forgive_the_engine() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let findings = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let file = info.location().map(|location| location.file()).unwrap_or_default();
            let ours = ["onnx/src/", "client-wasm/", "server/", "fuzz_targets/"];
            if ours.iter().any(|room| file.contains(room)) && !file.contains(".cargo/registry") {
                findings(info);
            }
        }));
    });
}
