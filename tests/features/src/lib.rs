//! Keeps one feature set whatever crates are selected, so that `cargo test -p` reuses what is compiled.
