//! The pages are embedded from `web/dist`, which may not be built yet.

use std::path::Path;

fn main() {
    let dist = Path::new("../web/dist");
    // A folder that is made only after this compilation would not be served: its path could not be resolved.
    if let Err(error) = std::fs::create_dir_all(dist) {
        println!("cargo::warning=no folder for the pages, {}: {error}", dist.display());
    }
    // An optimised server has the pages in it; others read them from the folder.
    let optimised = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    println!("cargo::rerun-if-changed={}", if optimised { "../web/dist" } else { "build.rs" });
}
