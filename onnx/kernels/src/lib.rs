//! The matrix kernel of the browser build, registered with the engine: 4 rows by 8 columns of float32.
//!
//! The engine's own kernel has 8 by 8. Its 16 sums do not fit the registers that V8 gives to vectors on x86, so that it
//! stores and loads them in the innermost loop; the 8 of this one do fit. `just bench` shows what that is worth.

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod float;

/// The name under which the engine lists the kernel.
pub const NAME: &str = "backstitch_f32_4x8";

/// Makes sure that the kernel is part of the module: the linker drops registrations of code that nobody names.
pub fn register() {
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    std::hint::black_box(float::kernel as *const ());
}
