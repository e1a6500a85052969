//! A patch's three files are read or refused in words; a manifest that was read is written to bytes that read the same.
#![no_main]

use arbitrary::Arbitrary;
use backstitch_onnx::patch::{Manifest, Patch};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Files<'a> {
    manifest: &'a [u8],
    weights: Option<&'a [u8]>,
    graph: &'a [u8],
}

const GRAPH: &[u8] =
    include_bytes!("../../../onnx/models/fashion/patches/noise-reduction/patch.onnx");

fuzz_target!(|files: Files<'_>| {
    if let Ok(manifest) = Manifest::from_bytes(files.manifest) {
        let written = manifest.to_bytes();
        let again = Manifest::from_bytes(&written).expect("what was written reads");
        assert_eq!(again.to_bytes(), written, "writing is not stable");
    }
    let _ = Patch::from_parts(files.manifest, files.graph, files.weights);
    if let Ok(patch) = Patch::from_parts(files.manifest, GRAPH, files.weights) {
        let weights = patch.weights_bytes();
        let again =
            Patch::from_parts(files.manifest, GRAPH, Some(&weights)).expect("own weights fit");
        assert_eq!(again.weights_digest(), patch.weights_digest());
    }
});
