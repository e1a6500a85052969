//! The vocabulary of rules: arithmetic, layout and reductions as methods that emit one node each, or none where
//! nothing is to be done.

use super::builder::Builder;
use crate::encode::data_type;
use crate::error::{Code, Error};
use crate::model::Attribute;
use crate::tensor::DType;

impl Builder {
    /// A node of one input whose output has the input's dtype and shape.
    pub(crate) fn unary(&mut self, op: &str, x: &str) -> String {
        let (dtype, shape) = self.fact(x);
        self.emit(op, &[x], &[], dtype, shape)
    }

    /// An element-wise node of two broadcast inputs.
    pub(crate) fn binary(&mut self, op: &str, a: &str, b: &str) -> String {
        let (dtype, left) = self.fact(a);
        let right = self.shape(b);
        let dtype = match op {
            "Equal" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "And" | "Or" => {
                DType::Bool
            }
            _ => dtype,
        };
        let shape = self.broadcast(&left, &right);
        self.emit(op, &[a, b], &[], dtype, shape)
    }

    fn broadcast(&mut self, a: &[usize], b: &[usize]) -> Vec<usize> {
        let shape = broadcast_shape(a, b);
        shape.unwrap_or_else(|| {
            self.fail(Error::new(
                Code::EngineFailed,
                format!("shapes {a:?} and {b:?} do not broadcast"),
            ));
            a.to_vec()
        })
    }

    pub(crate) fn add(&mut self, a: &str, b: &str) -> String {
        self.binary("Add", a, b)
    }

    pub(crate) fn sub(&mut self, a: &str, b: &str) -> String {
        self.binary("Sub", a, b)
    }

    pub(crate) fn mul(&mut self, a: &str, b: &str) -> String {
        self.binary("Mul", a, b)
    }

    pub(crate) fn div(&mut self, a: &str, b: &str) -> String {
        self.binary("Div", a, b)
    }

    pub(crate) fn neg(&mut self, x: &str) -> String {
        self.unary("Neg", x)
    }

    /// `factor · x`.
    pub(crate) fn scale(&mut self, x: &str, factor: f64) -> String {
        if factor == 1.0 {
            return x.to_owned();
        }
        if factor == -1.0 {
            return self.neg(x);
        }
        let factor = self.scalar(x, factor);
        self.mul(x, &factor)
    }

    /// `x + term`.
    pub(crate) fn offset(&mut self, x: &str, term: f64) -> String {
        let term = self.scalar(x, term);
        self.add(x, &term)
    }

    /// `condition ? a : b`, element by element.
    pub(crate) fn select(&mut self, condition: &str, a: &str, b: &str) -> String {
        let (dtype, left) = self.fact(a);
        let right = self.shape(b);
        let mask = self.shape(condition);
        let shape = self.broadcast(&left, &right);
        let shape = self.broadcast(&shape, &mask);
        self.emit("Where", &[condition, a, b], &[], dtype, shape)
    }

    /// `x` where the condition holds, zero elsewhere, for finite `x`. A product is several times faster in the
    /// engine than a choice.
    pub(crate) fn keep_where(&mut self, condition: &str, x: &str) -> String {
        let mask = self.indicator(condition, x);
        self.mul(x, &mask)
    }

    /// One where the condition holds, zero elsewhere, in the dtype of `like`.
    pub(crate) fn indicator(&mut self, condition: &str, like: &str) -> String {
        let dtype = self.dtype(like);
        self.cast(condition, dtype)
    }

    pub(crate) fn cast(&mut self, x: &str, to: DType) -> String {
        let (from, shape) = self.fact(x);
        if from == to {
            return x.to_owned();
        }
        let number = i64::from(data_type(to) as i32);
        self.emit("Cast", &[x], &[("to", Attribute::Int(number))], to, shape)
    }

    /// Matrix product over the last two axes, batch axes broadcast. Both operands have at least two axes.
    pub(crate) fn matmul(&mut self, a: &str, b: &str) -> String {
        let (dtype, left) = self.fact(a);
        let right = self.shape(b);
        if left.len() < 2 || right.len() < 2 {
            self.fail(Error::new(
                Code::EngineFailed,
                format!("no matrix product of {left:?} and {right:?}"),
            ));
            return a.to_owned();
        }
        let mut shape = self.broadcast(&left[..left.len() - 2], &right[..right.len() - 2]);
        shape.push(left[left.len() - 2]);
        shape.push(right[right.len() - 1]);
        self.emit("MatMul", &[a, b], &[], dtype, shape)
    }

    // --- layout ------------------------------------------------------------------------------------------------

    pub(crate) fn reshape(&mut self, x: &str, shape: &[usize]) -> String {
        let (dtype, from) = self.fact(x);
        if from == shape {
            return x.to_owned();
        }
        let to = self.integers(shape);
        self.emit("Reshape", &[x, &to], &[], dtype, shape.to_vec())
    }

    /// Output axis `i` is input axis `order[i]`.
    pub(crate) fn transpose(&mut self, x: &str, order: &[usize]) -> String {
        if order.iter().enumerate().all(|(i, axis)| i == *axis) {
            return x.to_owned();
        }
        let (dtype, from) = self.fact(x);
        let shape = order.iter().map(|axis| from.get(*axis).copied().unwrap_or(1)).collect();
        let order = order.iter().map(|axis| *axis as i64).collect();
        self.emit("Transpose", &[x], &[("perm", Attribute::Ints(order))], dtype, shape)
    }

    /// Swaps the last two axes.
    pub(crate) fn swap(&mut self, x: &str) -> String {
        let rank = self.shape(x).len();
        let mut order: Vec<usize> = (0..rank).collect();
        if rank >= 2 {
            order.swap(rank - 1, rank - 2);
        }
        self.transpose(x, &order)
    }

    /// Repeats axes of size one until the shape is reached.
    pub(crate) fn expand(&mut self, x: &str, shape: &[usize]) -> String {
        let (dtype, from) = self.fact(x);
        if from == shape {
            return x.to_owned();
        }
        let to = self.integers(shape);
        self.emit("Expand", &[x, &to], &[], dtype, shape.to_vec())
    }

    /// Every `step`-th element of `axis` from `start`, `count` of them; a negative step walks down.
    pub(crate) fn slice(
        &mut self,
        x: &str,
        axis: usize,
        start: usize,
        count: usize,
        step: i64,
    ) -> String {
        let (dtype, mut shape) = self.fact(x);
        if start == 0 && step == 1 && shape.get(axis) == Some(&count) {
            return x.to_owned();
        }
        if let Some(dim) = shape.get_mut(axis) {
            *dim = count;
        }
        // One past the last element taken; walking down past the first element is written as a very negative end.
        let end = match start as i64 + (count as i64 - 1) * step + step.signum() {
            end if end < 0 => i64::MIN / 2,
            end => end,
        };
        let [start, end, axes, steps] =
            [start as i64, end, axis as i64, step].map(|v| self.vector(&[v]));
        self.emit("Slice", &[x, &start, &end, &axes, &steps], &[], dtype, shape)
    }

    /// Reverses an axis.
    pub(crate) fn flip(&mut self, x: &str, axis: usize) -> String {
        let count = self.shape(x).get(axis).copied().unwrap_or(1);
        if count <= 1 { x.to_owned() } else { self.slice(x, axis, count - 1, count, -1) }
    }

    /// Surrounds each axis with `before` and `after` copies of a value.
    pub(crate) fn pad(&mut self, x: &str, before: &[usize], after: &[usize], value: f64) -> String {
        if before.iter().chain(after).all(|n| *n == 0) {
            return x.to_owned();
        }
        let (dtype, mut shape) = self.fact(x);
        for (dim, (b, a)) in shape.iter_mut().zip(before.iter().zip(after)) {
            *dim += b + a;
        }
        let pads: Vec<usize> = before.iter().chain(after).copied().collect();
        let pads = self.integers(&pads);
        let value = self.scalar(x, value);
        self.emit("Pad", &[x, &pads, &value], &[], dtype, shape)
    }

    /// Elements `start .. start + count` of an axis; what lies outside the tensor reads as `fill`.
    pub(crate) fn window(
        &mut self,
        x: &str,
        axis: usize,
        start: i64,
        count: usize,
        fill: f64,
    ) -> String {
        self.windows(x, axis, &[(start, count)], fill)
    }

    /// As [`Builder::window`] on consecutive axes from `first`, padded at once.
    pub(crate) fn windows(
        &mut self,
        x: &str,
        first: usize,
        windows: &[(i64, usize)],
        fill: f64,
    ) -> String {
        let shape = self.shape(x);
        let mut target = shape.clone();
        let (mut before, mut after) = (vec![0; shape.len()], vec![0; shape.len()]);
        let mut inner = x.to_owned();
        for (axis, (start, count)) in (first..shape.len()).zip(windows) {
            let dim = shape[axis] as i64;
            let (from, to) = ((*start).clamp(0, dim), (start + *count as i64).clamp(0, dim));
            target[axis] = *count;
            if from >= to {
                let fill = self.scalar(x, fill);
                for (axis, (_, count)) in (first..shape.len()).zip(windows) {
                    target[axis] = *count;
                }
                return self.expand(&fill, &target);
            }
            inner = self.slice(&inner, axis, from as usize, (to - from) as usize, 1);
            before[axis] = (from - start) as usize;
            after[axis] = count - before[axis] - (to - from) as usize;
        }
        self.pad(&inner, &before, &after, fill)
    }

    /// Spreads an axis so that element `i` lands on `i · stride`, zeros between: the adjoint of a strided slice.
    /// The result has `(n - 1) · stride + 1` elements.
    pub(crate) fn spread(&mut self, x: &str, axis: usize, stride: usize) -> String {
        let shape = self.shape(x);
        let Some(&count) = shape.get(axis).filter(|n| **n > 1 && stride > 1) else {
            return x.to_owned();
        };
        let mut split = shape.clone();
        split.insert(axis + 1, 1);
        let column = self.reshape(x, &split);
        let before = vec![0; split.len()];
        let mut after = before.clone();
        after[axis + 1] = stride - 1;
        let padded = self.pad(&column, &before, &after, 0.0);
        let mut merged = shape;
        merged[axis] = count * stride;
        let merged = self.reshape(&padded, &merged);
        self.slice(&merged, axis, 0, (count - 1) * stride + 1, 1)
    }

    pub(crate) fn concat(&mut self, parts: &[String], axis: usize) -> String {
        if let [only] = parts {
            return only.clone();
        }
        let mut total = 0;
        for part in parts {
            total += self.shape(part).get(axis).copied().unwrap_or(1);
        }
        let (dtype, mut shape) =
            parts.first().map_or((DType::F32, Vec::new()), |first| self.fact(first));
        if let Some(dim) = shape.get_mut(axis) {
            *dim = total;
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.emit("Concat", &parts, &[("axis", Attribute::Int(axis as i64))], dtype, shape)
    }

    // --- reductions --------------------------------------------------------------------------------------------

    /// Sums over axes, which stay as size one or go.
    pub(crate) fn sum(&mut self, x: &str, axes: &[usize], keep: bool) -> String {
        if axes.is_empty() {
            return x.to_owned();
        }
        let (dtype, from) = self.fact(x);
        let shape = reduced_shape(&from, axes, keep);
        if axes.iter().all(|axis| from.get(*axis) == Some(&1)) {
            return self.reshape(x, &shape);
        }
        let axes = self.integers(axes);
        self.emit(
            "ReduceSum",
            &[x, &axes],
            &[("keepdims", Attribute::Int(i64::from(keep)))],
            dtype,
            shape,
        )
    }

    /// Brings a gradient to the shape of the tensor it belongs to: sums the axes that broadcasting repeated,
    /// repeats those that it has as one.
    pub(crate) fn fit(&mut self, x: &str, target: &[usize]) -> String {
        let shape = self.shape(x);
        if shape == target {
            return x.to_owned();
        }
        let lead = shape.len().saturating_sub(target.len());
        let aligned = |axis: usize| {
            (axis + target.len()).checked_sub(shape.len()).and_then(|i| target.get(i))
        };
        let axes: Vec<usize> = (0..shape.len())
            .filter(|&axis| axis < lead || (shape[axis] > 1 && aligned(axis) == Some(&1)))
            .collect();
        let keep = axes.iter().any(|axis| *axis >= lead);
        let summed = self.sum(x, &axes, keep);
        let count: usize = self.shape(&summed).iter().product();
        if count == target.iter().product::<usize>() {
            return self.reshape(&summed, target);
        }
        self.expand(&summed, target)
    }
}

/// The shape of two broadcast operands, or nothing where they do not fit.
pub(crate) fn broadcast_shape(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at =
        |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

fn reduced_shape(shape: &[usize], axes: &[usize], keep: bool) -> Vec<usize> {
    let each = shape.iter().enumerate();
    if keep {
        each.map(|(axis, dim)| if axes.contains(&axis) { 1 } else { *dim }).collect()
    } else {
        each.filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| *dim).collect()
    }
}
