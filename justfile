# The project's commands. `./bootstrap` installs what they need.

set shell := ["bash", "-euo", "pipefail", "-c"]

target := env("CARGO_TARGET_DIR", justfile_directory() / "target")
bindings := "web/packages/client/wasm/backstitch_bg.wasm"
browser_crate := "--package backstitch-client-wasm --target wasm32-unknown-unknown"

# List the recipes.
default:
    @just --list --unsorted

# Run the server, a simulated fleet, the page and the console.
demo *arguments: web
    cargo run --quiet --package backstitch-server -- demo {{arguments}}

# Everything that CI checks, in its order.
test: lint test-rust test-browser

# Unit, property and integration tests of every native crate.
test-rust:
    cargo test --workspace --exclude backstitch-client-wasm

# Tests of the browser crate, of the pages' logic, and the users' stories, in a real Chromium.
test-browser: web
    cargo test {{browser_crate}} --profile wasm
    cargo build --quiet --package backstitch-server
    cd web && npm test
    node --test tests/browser/

# kill −9 of a real server at every write to a file, a restart, and a look at the books (some ten minutes).
crash-matrix:
    cargo test --package backstitch-server --test process -- --ignored --nocapture

# A hundred thousand random sequences of what can happen to a round (some ten minutes).
sequences:
    cargo test --package backstitch-server --lib hundred_thousand -- --ignored --nocapture

# Faults of the privacy code, put into a copy of the sources: each must be caught by the test that is named for it. With a
# word, only those whose name has it.
mutations word="":
    MUTATIONS="{{word}}" cargo test --package backstitch-tests every_fault_is_caught -- --ignored --nocapture

# The time of the noise with the secure generator (builds OpenSSL; the bar is 15 ms per 1,000 values), optimised as a
# released server is: the sampler is generic, so it is compiled with our own crates.
noise-bench:
    CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo test --package backstitch-server --features secure-rng --lib fifteen_milliseconds -- --ignored --nocapture

# Fuzz a parser of outside bytes, or stitching: model, manifest, stitch, contribution, catalog, wire, device or input (needs
# `cargo install cargo-fuzz`).
fuzz name seconds="600":
    mkdir -p tests/fuzz/corpus/{{name}}
    cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none {{name}} tests/fuzz/corpus/{{name}} \
      $(case {{name}} in model) echo onnx/tests/golden;; manifest) echo onnx/models/fashion/patches;; esac) \
      -- -max_total_time={{seconds}} -rss_limit_mb=4096 -timeout=30 \
      $([ {{name}} != stitch ] || echo -len_control=0 -max_len=400)

# Licences, sources, duplicates and advisories of every dependency (needs `cargo install cargo-deny`).
deny *checks:
    cargo deny --config .ci/deny.toml check {{checks}}

# Formatting and lints, Rust and TypeScript.
lint: web
    cargo fmt --all --check
    cargo clippy --quiet --workspace --all-targets --exclude backstitch-client-wasm -- --deny warnings
    cargo clippy --quiet {{browser_crate}} --package backstitch-kernels --package backstitch-bench --profile wasm -- --deny warnings
    cd web && npm run --silent lint

# Build the browser's WebAssembly and its bindings.
wasm:
    cargo build --quiet {{browser_crate}} --profile wasm
    @if [ "{{target}}/wasm32-unknown-unknown/wasm/backstitch_client_wasm.wasm" -nt {{bindings}} ]; then \
      wasm-bindgen --target web --remove-name-section --remove-producers-section \
        --out-dir {{parent_directory(bindings)}} --out-name backstitch \
        "{{target}}/wasm32-unknown-unknown/wasm/backstitch_client_wasm.wasm"; fi

# Build the npm package, the page and the console, where something changed since the last time.
web: wasm
    @if [ ! -f web/dist/index.html ] || [ -n "$(find web/packages web/*.json web/*.ts -newer web/dist/index.html -type f \
      -not -path '*/dist/*' -print -quit)" ]; then cd web && npm run --silent build && touch dist/index.html; fi

# Measure in Chromium beside onnxruntime-web and TensorFlow.js; writes docs/BENCHMARKS.md (`just bench --help`).
bench *arguments: web
    cargo build --quiet --package backstitch-server
    cargo build --quiet --package backstitch-bench --target wasm32-unknown-unknown --profile wasm
    wasm-bindgen --target web --out-dir tests/bench/wasm --out-name bench \
      "{{target}}/wasm32-unknown-unknown/wasm/backstitch_bench.wasm"
    cd tests/bench && npm ci --no-audit --no-fund --loglevel=error --ignore-scripts
    node tests/bench/bench.mjs {{arguments}}

# Make the sample library anew from its data (needs Python with PyTorch: onnx/models/fashion/make/README.md).
models data="/usr/share/datasets/fashion-mnist":
    python3 onnx/models/fashion/make/train.py --data {{data}}

# Format everything.
format:
    cargo fmt --all
    cd web && npm run format
