//! The largest value of each window of a plane: first over the rows of a window, whole rows at a time, then over the
//! columns of what is left. The compiler makes vectors of both.

/// Windows along one axis, in elements; `before` counts those of the padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Length of the axis.
    pub input: usize,
    /// How many windows there are.
    pub output: usize,
    /// Elements of each.
    pub size: usize,
    /// From one window to the next.
    pub stride: usize,
    /// From one element of a window to the next.
    pub dilation: usize,
    /// Padding before the first element.
    pub before: usize,
}

impl Windows {
    /// Where the elements of a window lie, without those in the padding.
    fn elements(self, window: usize) -> impl Iterator<Item = usize> {
        let at = move |element: usize| {
            (window * self.stride + element * self.dilation).checked_sub(self.before)
        };
        (0..self.size).filter_map(at).filter(move |at| *at < self.input)
    }

    /// The windows whose element of this number is not in the padding, and where it lies in the first of them.
    fn reached(self, element: usize) -> (std::ops::Range<usize>, usize) {
        let offset = element * self.dilation;
        let until = |place: usize| place.saturating_sub(offset).div_ceil(self.stride);
        let first = until(self.before).min(self.output);
        let end = until(self.before + self.input).clamp(first, self.output);
        (first..end, (first * self.stride + offset).saturating_sub(self.before))
    }
}

/// Pools planes `[rows.input, columns.input]`, one after the other, into planes `[rows.output, columns.output]`. A
/// window without elements, or with nothing but what is not a number, has the least finite float.
pub fn max_pool(input: &[f32], output: &mut [f32], rows: Windows, columns: Windows) {
    let (width, plane) = (columns.input, rows.input * columns.input);
    let reached: Vec<_> = (0..columns.size).map(|element| columns.reached(element)).collect();
    let mut largest = vec![f32::MIN; width];
    let pooled = output.chunks_exact_mut((rows.output * columns.output).max(1));
    for (plane, pooled) in input.chunks_exact(plane.max(1)).zip(pooled) {
        for (window, pooled) in pooled.chunks_exact_mut(columns.output.max(1)).enumerate() {
            largest.fill(f32::MIN);
            for row in rows.elements(window) {
                raise(&mut largest, plane[row * width..][..width].iter());
            }
            pooled.fill(f32::MIN);
            for (windows, start) in &reached {
                let Some(elements) = largest.get(*start..) else { continue };
                let pooled = &mut pooled[windows.clone()];
                // A step that the compiler knows is many times faster.
                match columns.stride {
                    1 => raise(pooled, elements.iter()),
                    2 => raise(pooled, elements.iter().step_by(2)),
                    stride => raise(pooled, elements.iter().step_by(stride)),
                }
            }
        }
    }
}

/// Puts the greater of both in place; what is not a number is never greater.
fn raise<'a>(largest: &mut [f32], values: impl Iterator<Item = &'a f32>) {
    for (largest, value) in largest.iter_mut().zip(values) {
        *largest = if *largest < *value { *value } else { *largest };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the specification says it, element by element.
    fn by_definition(plane: &[f32], rows: Windows, columns: Windows) -> Vec<f32> {
        let inside = |axis: Windows, window: usize, element: usize| {
            let padded = window * axis.stride + element * axis.dilation;
            (padded >= axis.before && padded < axis.before + axis.input)
                .then(|| padded - axis.before)
        };
        let mut pooled = Vec::new();
        for row in 0..rows.output {
            for column in 0..columns.output {
                let mut largest = f32::MIN;
                for y in (0..rows.size).filter_map(|element| inside(rows, row, element)) {
                    for x in (0..columns.size).filter_map(|e| inside(columns, column, e)) {
                        largest = largest.max(plane[y * columns.input + x]);
                    }
                }
                pooled.push(largest);
            }
        }
        pooled
    }

    fn axes() -> impl Iterator<Item = Windows> {
        let input: usize = 7;
        let steps = [1, 2, 3].into_iter().flat_map(|size| [1, 2, 3].map(|stride| (size, stride)));
        steps.flat_map(move |(size, stride)| {
            [(1, 0), (1, 1), (2, 0), (2, 2), (1, 8)].into_iter().flat_map(
                move |(dilation, before)| {
                    // Some windows reach beyond the end, or lie in the padding as a whole.
                    [1, (input + before).div_ceil(stride)].map(|output| Windows {
                        input,
                        output,
                        size,
                        stride,
                        dilation,
                        before,
                    })
                },
            )
        })
    }

    #[test]
    fn windows_of_every_form_have_their_largest_element() {
        let planes: Vec<f32> = (0..98).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        for rows in axes() {
            for columns in axes() {
                let size = rows.output * columns.output;
                let mut pooled = vec![0.0; 2 * size];
                max_pool(&planes, &mut pooled, rows, columns);
                for (plane, pooled) in planes.chunks(49).zip(pooled.chunks(size)) {
                    assert_eq!(pooled, by_definition(plane, rows, columns), "{rows:?} {columns:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_is_passed_over() {
        let axis = Windows { input: 2, output: 1, size: 2, stride: 2, dilation: 1, before: 0 };
        let line = Windows { input: 1, output: 1, size: 1, stride: 1, dilation: 1, before: 0 };
        let mut pooled = [0.0];
        max_pool(&[f32::NAN, -3.0], &mut pooled, line, axis);
        assert_eq!(pooled, [-3.0]);
    }
}
