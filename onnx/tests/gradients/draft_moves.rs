//! The steps of a [`Draft`] that move, pick, convolve or normalise.

use super::draft::Draft;

impl Draft {
    pub(super) fn layout(&mut self, x: &str, shape: &[usize]) {
        let rank = shape.len();
        let total: usize = shape.iter().product();
        match self.below(9) {
            0 => {
                let [a, b] = split(total);
                self.push(&format!("Reshape({x}, [{a},-1])"), vec![a, b]);
            }
            1 if rank >= 2 => {
                let order = self.order(rank);
                let result = order.iter().map(|axis| shape[*axis]).collect();
                self.push(&format!("Transpose({x}) perm={}", list(&order)), result);
            }
            2 if rank >= 1 => {
                let axis = self.below(rank + 1);
                let front = shape[..axis].iter().product();
                self.push(&format!("Flatten({x}) axis={axis}"), vec![front, total / front]);
            }
            3 => {
                let axis = self.below(rank + 1);
                let mut result = shape.to_vec();
                result.insert(axis, 1);
                self.push(&format!("Unsqueeze({x}, [{axis}])"), result);
            }
            4 if shape.contains(&1) => {
                let axis = shape.iter().position(|dim| *dim == 1).unwrap();
                let mut result = shape.to_vec();
                result.remove(axis);
                self.push(&format!("Squeeze({x}, [{axis}])"), result);
            }
            5 if rank >= 1 => {
                let axis = self.below(rank);
                let mut other = shape.to_vec();
                other[axis] = 1 + self.below(3);
                let w = if self.chance(0.3) { x.to_owned() } else { self.weight(&other) };
                let mut result = shape.to_vec();
                result[axis] += if w == x { shape[axis] } else { other[axis] };
                self.push(&format!("Concat({x}, {w}) axis={axis}"), result);
            }
            6 if rank >= 1 => {
                let axis = self.below(rank);
                let mut repeats = vec![1; rank];
                repeats[axis] = 2;
                let mut result = shape.to_vec();
                result[axis] *= 2;
                self.push(&format!("Tile({x}, {})", list(&repeats)), result);
            }
            7 => {
                let result = [&[2], shape].concat();
                self.push(&format!("Expand({x}, {})", list(&result)), result);
            }
            _ => self.pad(x, shape),
        }
    }

    fn pad(&mut self, x: &str, shape: &[usize]) {
        if shape.is_empty() {
            return;
        }
        let reflects = shape.iter().all(|dim| *dim > 1);
        let mode = self.below(if reflects { 3 } else { 2 });
        let pads: Vec<usize> = (0..2 * shape.len()).map(|_| self.below(2)).collect();
        let result: Vec<usize> =
            (0..shape.len()).map(|i| shape[i] + pads[i] + pads[i + shape.len()]).collect();
        let mode = ["", " mode=edge", " mode=reflect"][mode];
        self.push(&format!("Pad({x}, {}){mode}", list(&pads)), result);
    }

    /// A random order of so many axes.
    fn order(&mut self, rank: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..rank).collect();
        for i in (1..rank).rev() {
            let j = self.below(i + 1);
            order.swap(i, j);
        }
        order
    }

    pub(super) fn selection(&mut self, x: &str, shape: &[usize]) {
        if shape.is_empty() {
            return;
        }
        let axis = self.below(shape.len());
        let dim = shape[axis];
        let mut result = shape.to_vec();
        match self.below(6) {
            0 => {
                let start = self.below(dim);
                result[axis] = dim - start;
                self.push(&format!("Slice({x}, [{start}], [99], [{axis}])"), result);
            }
            1 => {
                result[axis] = dim.div_ceil(2);
                self.push(&format!("Slice({x}, [-1], [-99], [{axis}], [-2])"), result);
            }
            2 => {
                let picks: Vec<usize> = (0..1 + self.below(3)).map(|_| self.below(dim)).collect();
                result[axis] = picks.len();
                self.push(&format!("Gather({x}, {}) axis={axis}", list(&picks)), result);
            }
            3 => {
                let pick = self.below(dim);
                result.remove(axis);
                self.push(&format!("Gather({x}, {pick}i) axis={axis}"), result);
            }
            4 if dim >= 2 => {
                let first = 1 + self.below(dim - 1);
                let mut rest = result.clone();
                (result[axis], rest[axis]) = (first, dim - first);
                let text = format!("Split({x}, [{first},{}]) axis={axis}", dim - first);
                self.push_two(&text, [result, rest]);
            }
            _ => {
                result[axis] = 1 + self.below(dim);
                let text = format!("TopK({x}, [{}]) axis={axis}", result[axis]);
                self.push_indexed(&text, result);
            }
        }
    }

    pub(super) fn spatial(&mut self, x: &str, shape: &[usize]) {
        match shape {
            [_, c, h] if *h >= 2 => {
                let (kernel, outputs) = (1 + self.below(2), 1 + self.below(3));
                let w = self.weight(&[outputs, *c, kernel]);
                let pad = self.below(2);
                let text = format!("Conv({x}, {w}) pads=[{pad},{pad}]");
                self.push(&text, vec![shape[0], outputs, h + 2 * pad - kernel + 1]);
            }
            [n, c, h, w] => self.image(x, [*n, *c, *h, *w]),
            _ => {
                let side = 3 + self.below(2);
                let image = [1, 1 + self.below(3), side, side];
                let w = self.weight(&image);
                let mean = self.push(&format!("ReduceMean({x}) keepdims=0"), Vec::new());
                let moved = self.push(&format!("Add({w}, {mean})"), image.to_vec());
                self.image(&moved, image);
            }
        }
    }

    fn image(&mut self, x: &str, [n, c, h, w]: [usize; 4]) {
        let (kernel, outputs, stride) = (1 + self.below(3), 1 + self.below(3), 1 + self.below(2));
        let fits = h.min(w) + 2 >= kernel;
        let window = |side: usize| (side + 2 - kernel) / stride + 1;
        let rest =
            format!("kernel_shape=[{kernel},{kernel}] strides=[{stride},{stride}] pads=[1,1,1,1]");
        let pools = kernel >= 2 && fits;
        match self.below(8) {
            0 | 1 if fits => {
                let weight = self.weight(&[outputs, c, kernel, kernel]);
                let bias = self.weight(&[outputs]);
                let text = format!(
                    "Conv({x}, {weight}, {bias}) strides=[{stride},{stride}] pads=[1,1,1,1]"
                );
                self.push(&text, vec![n, outputs, window(h), window(w)]);
            }
            2 if fits => {
                let weight = self.weight(&[c, 1, kernel, kernel]);
                let text = format!(
                    "Conv({x}, {weight}) group={c} strides=[{stride},{stride}] pads=[1,1,1,1]"
                );
                self.push(&text, vec![n, c, window(h), window(w)]);
            }
            3 => {
                let weight = self.weight(&[c, outputs, kernel, kernel]);
                let text = format!("ConvTranspose({x}, {weight}) strides=[{stride},{stride}]");
                let long = |side: usize| (side - 1) * stride + kernel;
                self.push(&text, vec![n, outputs, long(h), long(w)]);
            }
            4 if pools => {
                self.push(&format!("MaxPool({x}) {rest}"), vec![n, c, window(h), window(w)]);
            }
            5 if pools => {
                let counting = ["", " count_include_pad=1"][self.below(2)];
                let text = format!("AveragePool({x}) {rest}{counting}");
                self.push(&text, vec![n, c, window(h), window(w)]);
            }
            6 => {
                let op = self.pick(&["GlobalAveragePool", "GlobalMaxPool"]);
                self.push(&format!("{op}({x})"), vec![n, c, 1, 1]);
            }
            _ => {
                let (tall, wide) = (h + self.below(3), w + self.below(3));
                let mode = self.pick(&[
                    "mode=linear",
                    "mode=linear coordinate_transformation_mode=align_corners",
                    "coordinate_transformation_mode=asymmetric nearest_mode=floor",
                ]);
                let text = format!("Resize({x}, _, _, [{n},{c},{tall},{wide}]) {mode}");
                self.push(&text, vec![n, c, tall, wide]);
            }
        }
    }

    pub(super) fn normalise(&mut self, x: &str, shape: &[usize]) {
        let (Some(last), rank) = (shape.last().copied(), shape.len()) else { return };
        match self.below(4) {
            0 if self.opset() >= 17 && last > 1 => {
                let (scale, bias) = (self.weight(&[last]), self.weight(&[last]));
                let text = format!("LayerNormalization({x}, {scale}, {bias}) epsilon=0.1");
                self.push(&text, shape.to_vec());
            }
            1 if rank >= 3 && shape[2..].iter().product::<usize>() > 1 => {
                let (scale, bias) = (self.weight(&shape[1..2]), self.weight(&shape[1..2]));
                let text = format!("InstanceNormalization({x}, {scale}, {bias}) epsilon=0.1");
                self.push(&text, shape.to_vec());
            }
            2 if rank >= 2 => {
                let [s, b, m] = std::array::from_fn(|_| self.weight(&shape[1..2]));
                let v = self.weight_within(&shape[1..2], "0.5..2");
                self.push(&format!("BatchNormalization({x}, {s}, {b}, {m}, {v})"), shape.to_vec());
            }
            _ => {
                let slope = self.weight(&[last]);
                self.push(&format!("PRelu({x}, {slope})"), shape.to_vec());
            }
        }
    }
}

/// Two factors of a size.
fn split(total: usize) -> [usize; 2] {
    let first = (2..=total).find(|n| total.is_multiple_of(*n)).unwrap_or(1);
    [first, total / first]
}

fn list(values: &[usize]) -> String {
    let values: Vec<String> = values.iter().map(usize::to_string).collect();
    format!("[{}]", values.join(","))
}
