//! The arithmetic of integer products: packed weights, and tiles of four rows by eight columns.
//!
//! Two neighbours along the inner dimension lie side by side as 16-bit integers, because WebAssembly multiplies and
//! adds such pairs in one instruction (`i32x4.dot_i16x8_s`) on every engine that has SIMD, and so does x86-64
//! (`PMADDWD`). Sums are exact.

/// Columns of a tile.
const COLUMNS: usize = 8;
/// Rows of a tile.
const ROWS: usize = 4;
/// The longest inner dimension whose sums of 255 · 255 fit 32 bits.
pub const LONGEST: usize = (i32::MAX / (255 * 255)) as usize - 1;

/// Eight columns of two neighbouring rows: w(k,0), w(k+1,0), w(k,1), w(k+1,1) …
type Pairs = [i16; 2 * COLUMNS];

/// The constant factor of a product, `[inner, columns]`, its zero points subtracted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Packed {
    inner: usize,
    columns: usize,
    /// Panels of eight columns, each of `inner` / 2 pairs, rounded up; what sticks out is 0.
    panels: Vec<Pairs>,
}

impl Packed {
    /// Packs the factor; `at(k, n)` is its element less the zero point, within ±255.
    pub fn new(inner: usize, columns: usize, at: impl Fn(usize, usize) -> i16) -> Self {
        let mut panels = Vec::with_capacity(columns.div_ceil(COLUMNS) * inner.div_ceil(2));
        for panel in 0..columns.div_ceil(COLUMNS) {
            for pair in 0..inner.div_ceil(2) {
                panels.push(std::array::from_fn(|lane| {
                    let (row, column) = (2 * pair + lane % 2, panel * COLUMNS + lane / 2);
                    if row < inner && column < columns { at(row, column) } else { 0 }
                }));
            }
        }
        Self { inner, columns, panels }
    }

    /// Rows of the factor.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// Columns of the factor.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(self.panels.as_slice())
    }

    /// `rows` times this factor, each column times its scale and plus its bias, into `output`. `rows` are
    /// [`pack_rows`]'.
    pub fn multiply(&self, rows: &[i32], scales: &[f32], bias: &[f32], output: &mut [f32]) {
        let pairs = self.inner.div_ceil(2);
        for (index, panel) in self.panels.chunks_exact(pairs).enumerate() {
            let column = index * COLUMNS;
            let width = COLUMNS.min(self.columns - column);
            let (scales, bias) = (&scales[column..][..width], &bias[column..][..width]);
            let mut made = output.chunks_exact_mut(self.columns);
            let mut write = |sums: &[i32; COLUMNS]| {
                let row = made.next().map(|row| &mut row[column..][..width]);
                for (((made, sum), scale), bias) in
                    row.into_iter().flatten().zip(sums).zip(scales).zip(bias)
                {
                    *made = *sum as f32 * scale + bias;
                }
            };
            let mut tiles = rows.chunks_exact(ROWS * pairs);
            for tile in tiles.by_ref() {
                let each = std::array::from_fn(|r| &tile[r * pairs..(r + 1) * pairs]);
                four(each, panel).iter().for_each(&mut write);
            }
            for last in tiles.remainder().chunks_exact(pairs) {
                write(&one(last, panel));
            }
        }
    }
}

/// Rows of `inner` integers within ±255, each row as pairs of 16 bits in one word.
pub fn pack_rows(inner: usize, values: &[i16]) -> Vec<i32> {
    let mut rows = Vec::with_capacity(values.len().div_ceil(2));
    for row in values.chunks_exact(inner) {
        let pairs = row.chunks_exact(2);
        let last = pairs.remainder().first().map(|value| word(*value, 0));
        rows.extend(pairs.map(|pair| word(pair[0], pair[1])));
        rows.extend(last);
    }
    rows
}

fn word(low: i16, high: i16) -> i32 {
    i32::from(low) & 0xffff | i32::from(high) << 16
}

/// Four rows times one panel. Written out, because the accumulators have to stay in registers however the compiler is
/// told to optimise.
fn four(rows: [&[i32]; ROWS], panel: &[Pairs]) -> [[i32; COLUMNS]; ROWS] {
    use simd::{add_dot, columns, factors, splat, zero};
    let [mut l0, mut l1, mut l2, mut l3] = [zero(); ROWS];
    let [mut r0, mut r1, mut r2, mut r3] = [zero(); ROWS];
    let [a0, a1, a2, a3] = rows;
    for ((((pairs, a0), a1), a2), a3) in panel.iter().zip(a0).zip(a1).zip(a2).zip(a3) {
        let (left, right) = factors(pairs);
        let (a0, a1, a2, a3) = (splat(*a0), splat(*a1), splat(*a2), splat(*a3));
        l0 = add_dot(l0, a0, left);
        r0 = add_dot(r0, a0, right);
        l1 = add_dot(l1, a1, left);
        r1 = add_dot(r1, a1, right);
        l2 = add_dot(l2, a2, left);
        r2 = add_dot(r2, a2, right);
        l3 = add_dot(l3, a3, left);
        r3 = add_dot(r3, a3, right);
    }
    [columns(l0, r0), columns(l1, r1), columns(l2, r2), columns(l3, r3)]
}

/// One row times one panel.
fn one(row: &[i32], panel: &[Pairs]) -> [i32; COLUMNS] {
    use simd::{add_dot, columns, factors, splat, zero};
    let (mut l, mut r) = (zero(), zero());
    for (pairs, a) in panel.iter().zip(row) {
        let (left, right) = factors(pairs);
        let a = splat(*a);
        l = add_dot(l, a, left);
        r = add_dot(r, a, right);
    }
    columns(l, r)
}

/// The instructions that a tile is made of, in the browser.
#[cfg(target_arch = "wasm32")]
mod simd {
    use std::arch::wasm32::{
        i16x8, i32x4_add, i32x4_dot_i16x8, i32x4_extract_lane as lane, i32x4_splat, v128,
    };

    use super::{COLUMNS, Pairs};

    #[inline(always)]
    pub(super) fn zero() -> v128 {
        i32x4_splat(0)
    }

    #[inline(always)]
    pub(super) fn splat(pair: i32) -> v128 {
        i32x4_splat(pair)
    }

    #[inline(always)]
    pub(super) fn add_dot(sum: v128, pair: v128, factors: v128) -> v128 {
        i32x4_add(sum, i32x4_dot_i16x8(pair, factors))
    }

    /// The first and the last four columns.
    #[inline(always)]
    pub(super) fn factors(p: &Pairs) -> (v128, v128) {
        (
            i16x8(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]),
            i16x8(p[8], p[9], p[10], p[11], p[12], p[13], p[14], p[15]),
        )
    }

    #[inline(always)]
    pub(super) fn columns(l: v128, r: v128) -> [i32; COLUMNS] {
        let (a, b) = ((lane::<0>(l), lane::<1>(l)), (lane::<2>(l), lane::<3>(l)));
        let (c, d) = ((lane::<0>(r), lane::<1>(r)), (lane::<2>(r), lane::<3>(r)));
        [a.0, a.1, b.0, b.1, c.0, c.1, d.0, d.1]
    }
}

/// The same on other machines, by what each has for it.
#[cfg(not(target_arch = "wasm32"))]
mod simd {
    use wide::{i16x8, i32x4};

    use super::{COLUMNS, Pairs};

    #[inline(always)]
    pub(super) fn zero() -> i32x4 {
        i32x4::ZERO
    }

    #[inline(always)]
    pub(super) fn splat(pair: i32) -> i16x8 {
        bytemuck::cast(i32x4::splat(pair))
    }

    #[inline(always)]
    pub(super) fn add_dot(sum: i32x4, pair: i16x8, factors: i16x8) -> i32x4 {
        sum + pair.dot(factors)
    }

    /// The first and the last four columns.
    #[inline(always)]
    pub(super) fn factors(p: &Pairs) -> (i16x8, i16x8) {
        (
            i16x8::new([p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]]),
            i16x8::new([p[8], p[9], p[10], p[11], p[12], p[13], p[14], p[15]]),
        )
    }

    #[inline(always)]
    pub(super) fn columns(l: i32x4, r: i32x4) -> [i32; COLUMNS] {
        bytemuck::cast([l, r])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_shape_multiplies_exactly() {
        let value = |seed: usize| ((seed * 7919 + 13) % 511) as i16 - 255;
        for (rows, inner, columns) in [(1, 1, 1), (4, 2, 8), (5, 7, 9), (3, 16, 17), (9, 33, 3)] {
            let a: Vec<i16> = (0..rows * inner).map(value).collect();
            let at = |k: usize, n: usize| value(31 + k * columns + n);
            let packed = Packed::new(inner, columns, at);
            let (scales, bias) = (vec![0.5; columns], vec![1.0; columns]);
            let mut made = vec![f32::NAN; rows * columns];
            packed.multiply(&pack_rows(inner, &a), &scales, &bias, &mut made);
            for row in 0..rows {
                for column in 0..columns {
                    let sum: i32 = (0..inner)
                        .map(|k| i32::from(a[row * inner + k]) * i32::from(at(k, column)))
                        .sum();
                    assert_eq!(
                        made[row * columns + column],
                        sum as f32 * 0.5 + 1.0,
                        "{rows}×{inner}×{columns}"
                    );
                }
            }
        }
    }
}
