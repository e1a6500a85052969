//! Prints the reference of features: `cargo run -p backstitch-client --example features > docs/FEATURES.md`.

fn main() {
    print!("{}", backstitch_client::analysis::reference());
}
