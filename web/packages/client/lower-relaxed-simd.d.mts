/** The module for engines with SIMD128 alone. */
export function lowerRelaxedSimd(bytes: Uint8Array): Buffer;
