//! The matrix kernel, 4 rows by 8 columns of float32: a list of operations carried out on one tile of sums.
//!
//! The engine's own kernel has 8 by 8. Its 16 sums do not fit the registers that V8 gives to vectors on x86, so that it
//! stores and loads them in the innermost loop; the 8 of this one do fit. `just bench` shows what that is worth.

use std::arch::wasm32::*;

use inventory::submit;
use tract_linalg::Scaler;
use tract_linalg::isa::Arch;
use tract_linalg::mmm::{DynKernel, FusedKerSpec, OutputStoreKer};
use tract_linalg::mmm_routines::MmmRoutine;
use tract_linalg::mmm_tiers::MmmTier;
use tract_linalg::pack::Packing;

use crate::NAME;

const ROWS: usize = 4;
/// Vectors of four columns.
const VECTORS: usize = 2;
const COLUMNS: usize = 4 * VECTORS;

type Tile = [[v128; VECTORS]; ROWS];

submit! {
    MmmRoutine {
        make: || {
            let (rows, columns) = (f32::packing(ROWS), f32::packing(COLUMNS));
            let mut made = DynKernel::<ROWS, COLUMNS, f32>::new(NAME, kernel, rows, columns);
            made.arch = Some(Arch::Wasm32Simd128);
            made.mmm()
        },
    }
}

submit! {
    MmmTier {
        arch: Some(Arch::Wasm32Simd128),
        // Above the engine's own.
        precedence: 2,
        name: "backstitch",
        applies: |_| true,
        // Products with a vector have kernels of their own.
        preferred: |_, accumulator, query, _| {
            let floats = accumulator == tract_data::prelude::DatumType::F32;
            (floats && query.n != Some(1)).then_some(NAME)
        },
    }
}

/// Carries out the operations in order, up to the first `Done`.
///
/// # Safety
/// Pointers in the operations must be valid for a tile of 4 by 8, as the engine's contract says.
pub(crate) unsafe fn kernel(operations: &[FusedKerSpec<f32>]) -> isize {
    use FusedKerSpec as Op;
    let mut tile: Tile = [[f32x4_splat(0.0); VECTORS]; ROWS];
    for operation in operations {
        // SAFETY: the engine vouches for the pointers.
        unsafe {
            match *operation {
                Op::Done => break,
                Op::Clear => tile = [[f32x4_splat(0.0); VECTORS]; ROWS],
                Op::AddMatMul { k, pa, pb, .. } => add_product(&mut tile, k, pa.cast(), pb.cast()),
                Op::LoadTile(_, rows) => load(&mut tile, rows.cast()),
                Op::Store(target) => store(&tile, &target),
                Op::AddUnicast(source) => add_unicast(&mut tile, &source),
                Op::AddRowColProducts(rows, columns) => add_product(&mut tile, 1, rows, columns),
                Op::ScalarMin(a) => each(&mut tile, |x| f32x4_min(f32x4_splat(a), x)),
                Op::ScalarMax(a) => each(&mut tile, |x| f32x4_max(f32x4_splat(a), x)),
                Op::ScalarAdd(a) => each(&mut tile, |x| f32x4_add(f32x4_splat(a), x)),
                Op::ScalarMul(a) => each(&mut tile, |x| f32x4_mul(f32x4_splat(a), x)),
                Op::ScalarSub(a) => each(&mut tile, |x| f32x4_sub(f32x4_splat(a), x)),
                Op::ScalarSubF(a) => each(&mut tile, |x| f32x4_sub(x, f32x4_splat(a))),
                Op::LeakyRelu(a) => each(&mut tile, |x| leaky(x, a)),
                Op::PerRowMin(rows) => per_row(&mut tile, rows, |a, x| f32x4_min(a, x)),
                Op::PerRowMax(rows) => per_row(&mut tile, rows, |a, x| f32x4_max(a, x)),
                Op::PerRowAdd(rows) => per_row(&mut tile, rows, |a, x| f32x4_add(a, x)),
                Op::PerRowMul(rows) => per_row(&mut tile, rows, |a, x| f32x4_mul(a, x)),
                Op::PerRowSub(rows) => per_row(&mut tile, rows, |a, x| f32x4_sub(a, x)),
                Op::PerRowSubF(rows) => per_row(&mut tile, rows, |a, x| f32x4_sub(x, a)),
                Op::PerColMin(columns) => per_column(&mut tile, columns, |a, x| f32x4_min(a, x)),
                Op::PerColMax(columns) => per_column(&mut tile, columns, |a, x| f32x4_max(a, x)),
                Op::PerColAdd(columns) => per_column(&mut tile, columns, |a, x| f32x4_add(a, x)),
                Op::PerColMul(columns) => per_column(&mut tile, columns, |a, x| f32x4_mul(a, x)),
                Op::PerColSub(columns) => per_column(&mut tile, columns, |a, x| f32x4_sub(a, x)),
                Op::PerColSubF(columns) => per_column(&mut tile, columns, |a, x| f32x4_sub(x, a)),
                Op::QScale(shift, rounding, factor) => {
                    scale(&mut tile, Scaler::from_fuse_params(shift, rounding, factor).scale);
                }
                Op::RoundingShiftRight(shift, _) => scale(&mut tile, 2f32.powi(-(shift as i32))),
                Op::ShiftLeft(shift) => scale(&mut tile, 2f32.powi(shift as i32)),
            }
        }
    }
    0
}

/// `tile += a · b`, with `a` packed as `[k][4]` and `b` as `[k][8]`. A function of its own, because within the large one
/// V8 does not keep the sums in registers.
#[inline(never)]
unsafe fn add_product(tile: &mut Tile, k: usize, a: *const f32, b: *const f32) {
    let (mut a, mut b) = (a, b.cast::<v128>());
    let mut sums = *tile;
    for _ in 0..k {
        // SAFETY: the packed operands have k rows.
        unsafe {
            let (left, right) = (v128_load(b), v128_load(b.add(1)));
            for (row, [one, other]) in sums.iter_mut().enumerate() {
                let factor = v128_load32_splat(a.add(row).cast());
                *one = multiply_add(factor, left, *one);
                *other = multiply_add(factor, right, *other);
            }
            (a, b) = (a.add(ROWS), b.add(VECTORS));
        }
    }
    *tile = sums;
}

#[inline(always)]
fn multiply_add(a: v128, b: v128, sum: v128) -> v128 {
    #[cfg(target_feature = "relaxed-simd")]
    return f32x4_relaxed_madd(a, b, sum);
    #[cfg(not(target_feature = "relaxed-simd"))]
    return f32x4_add(f32x4_mul(a, b), sum);
}

#[inline(always)]
fn each(tile: &mut Tile, change: impl Fn(v128) -> v128) {
    for sums in tile.as_flattened_mut() {
        *sums = change(*sums);
    }
}

#[inline(always)]
fn scale(tile: &mut Tile, factor: f32) {
    each(tile, |x| f32x4_mul(f32x4_splat(factor), x));
}

#[inline(always)]
fn leaky(x: v128, slope: f32) -> v128 {
    let positive = f32x4_gt(x, f32x4_splat(0.0));
    v128_bitselect(x, f32x4_mul(f32x4_splat(slope), x), positive)
}

#[inline(always)]
unsafe fn per_row(tile: &mut Tile, rows: *const f32, change: impl Fn(v128, v128) -> v128) {
    for (row, sums) in tile.iter_mut().enumerate() {
        // SAFETY: there is one number per row.
        let operand = unsafe { v128_load32_splat(rows.add(row).cast()) };
        for sums in sums {
            *sums = change(operand, *sums);
        }
    }
}

#[inline(always)]
unsafe fn per_column(tile: &mut Tile, columns: *const f32, change: impl Fn(v128, v128) -> v128) {
    for vector in 0..VECTORS {
        // SAFETY: there is one number per column.
        let operand = unsafe { v128_load(columns.cast::<v128>().add(vector)) };
        for sums in tile.iter_mut() {
            sums[vector] = change(operand, sums[vector]);
        }
    }
}

#[inline(always)]
unsafe fn load(tile: &mut Tile, rows: *const v128) {
    for (index, sums) in tile.as_flattened_mut().iter_mut().enumerate() {
        // SAFETY: a tile is stored there, row after row.
        *sums = unsafe { v128_load(rows.add(index)) };
    }
}

/// Where four columns of a row begin in a target.
#[inline(always)]
unsafe fn place(target: &OutputStoreKer, row: usize, vector: usize) -> *mut u8 {
    let columns = target.col_byte_stride * (4 * vector) as isize;
    // SAFETY: the target holds a whole tile.
    unsafe { target.ptr.offset(target.row_byte_stride * row as isize + columns) }
}

#[inline(always)]
unsafe fn add_unicast(tile: &mut Tile, source: &OutputStoreKer) {
    let step = source.col_byte_stride;
    for (row, sums) in tile.iter_mut().enumerate() {
        for (vector, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the source holds a whole tile.
            let read = unsafe {
                let start = place(source, row, vector);
                let at = |column: isize| start.offset(step * column).cast::<f32>().read();
                if step == 4 { v128_load(start.cast()) } else { f32x4(at(0), at(1), at(2), at(3)) }
            };
            *sums = f32x4_add(read, *sums);
        }
    }
}

#[inline(always)]
unsafe fn store(tile: &Tile, target: &OutputStoreKer) {
    let step = target.col_byte_stride;
    for (row, sums) in tile.iter().enumerate() {
        for (vector, sums) in sums.iter().enumerate() {
            // SAFETY: the target holds a whole tile.
            unsafe {
                let start = place(target, row, vector);
                if step == 4 {
                    v128_store(start.cast(), *sums);
                    continue;
                }
                let write =
                    |column: isize, x: f32| start.offset(step * column).cast::<f32>().write(x);
                write(0, f32x4_extract_lane::<0>(*sums));
                write(1, f32x4_extract_lane::<1>(*sums));
                write(2, f32x4_extract_lane::<2>(*sums));
                write(3, f32x4_extract_lane::<3>(*sums));
            }
        }
    }
}
