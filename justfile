# The project's commands. `./bootstrap` installs what they need.

set shell := ["bash", "-euo", "pipefail", "-c"]

# List the recipes.
default:
    @just --list --unsorted

# Run the server, a simulated fleet, the page and the console.
demo *arguments: web
    cargo run --quiet --package backstitch-server -- demo {{arguments}}

# Every Rust test. The browser stories and lints join when the page runs end to end.
test:
    cargo test --workspace --exclude backstitch-client-wasm

# Formatting and lints, Rust and TypeScript.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --exclude backstitch-client-wasm -- --deny warnings
    cargo clippy --package backstitch-client-wasm --target wasm32-unknown-unknown -- --deny warnings
    cd web && npm run lint

# Build the browser's WebAssembly and its bindings.
wasm:
    cargo build --quiet --package backstitch-client-wasm --target wasm32-unknown-unknown --profile wasm
    wasm-bindgen --target web --out-dir web/packages/client/wasm --out-name backstitch \
      target/wasm32-unknown-unknown/wasm/backstitch_client_wasm.wasm

# Build the npm package, the page and the console.
web: wasm
    cd web && npm run --silent build

# Format everything.
format:
    cargo fmt --all
    cd web && npm run format
