//! The arithmetic that inference spends its time in: the matrix kernel of the browser build, registered with the engine,
//! products of quantised activations, and pools. It is a crate of its own because it is compiled for speed, where the rest of
//! the browser's module is compiled to be small, and because the matrix kernel is the only unsafe code.

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod float;
mod integer;
mod levels;
mod pool;

pub use integer::{LONGEST, Packed, pack_rows};
pub use levels::quantise;
pub use pool::{Windows, max_pool};

/// The name under which the engine lists the matrix kernel.
pub const NAME: &str = "backstitch_f32_4x8";

/// Makes sure that the matrix kernel is part of the module: the linker drops registrations of code that nobody names.
pub fn register() {
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    std::hint::black_box(float::kernel as *const ());
}
