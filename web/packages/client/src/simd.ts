// Which of the two WebAssembly files this browser can run.

/** A function that swizzles by relaxed SIMD: engines without it refuse the module. */
const PROBE = Uint8Array.of(
  ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
  ...[0x01, 0x05, 0x01, 0x60, 0x00, 0x01, 0x7b, 0x03, 0x02, 0x01, 0x00],
  ...[0x0a, 0x0f, 0x01, 0x0d, 0x00, 0x41, 0x01, 0xfd, 0x0f, 0x41, 0x02, 0xfd, 0x0f, 0xfd, 0x80, 0x02, 0x0b],
);

/** The file with fused multiplications where the browser has relaxed SIMD, else the one with SIMD128 alone. */
export function bestWasm(): URL {
  // Bundlers find both files by exactly these expressions; a page loads one.
  return WebAssembly.validate(PROBE)
    ? new URL("./client_relaxed_bg.wasm", import.meta.url)
    : new URL("./client_bg.wasm", import.meta.url);
}
