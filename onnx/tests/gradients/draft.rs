//! A seeded generator of small graphs for the gradient property test. Every step appends one operator, or a few that
//! keep its input where it is smooth, to the tensors made so far.

use super::case::{Case, Random};

/// More elements than this are reduced before anything else is done with them.
const ELEMENTS: usize = 160;

/// Operators of one input and one output of the same shape, with the least operator set.
const SMOOTH: &[(&str, i64)] = &[
    ("Tanh(x)", 13),
    ("Sigmoid(x)", 13),
    ("Sin(x)", 13),
    ("Cos(x)", 13),
    ("Atan(x)", 13),
    ("Asinh(x)", 13),
    ("Erf(x)", 13),
    ("Softplus(x)", 13),
    ("Softsign(x)", 13),
    ("Softmax(x) axis=-1", 13),
    ("LogSoftmax(x) axis=-1", 13),
    ("Neg(x)", 13),
    ("Identity(x)", 13),
    ("Dropout(x)", 13),
    ("Relu(x)", 13),
    ("LeakyRelu(x) alpha=0.2", 13),
    ("Elu(x) alpha=0.7", 13),
    ("Selu(x)", 13),
    ("Celu(x) alpha=0.6", 13),
    ("ThresholdedRelu(x) alpha=0.3", 13),
    ("HardSigmoid(x) alpha=0.7 beta=0.4", 13),
    ("Clip(x, -0.4, 0.6)", 13),
    ("Clip(x, _, 0.5)", 13),
    ("Abs(x)", 13),
    ("HardSwish(x)", 14),
    ("Mish(x)", 18),
    ("Gelu(x)", 20),
    ("Gelu(x) approximate=tanh", 20),
    ("LpNormalization(x) p=2", 13),
    ("Trilu(x) upper=0", 14),
    ("CumSum(x, 0i) reverse=1", 14),
    ("CumSum(x, -1i) exclusive=1", 14),
];

/// Operators that want values within (−1, 1) or above zero: `$t` is `Tanh(x)`, `$p` is `0.5 + x²`.
const GUARDED: &[&str] = &[
    "Exp($t)",
    "Tan($t)",
    "Sinh($t)",
    "Cosh($t)",
    "Pow($t, 2.0)",
    "Pow($t, 3.0)",
    "Sqrt($p)",
    "Log($p)",
    "Reciprocal($p)",
    "Pow($p, 1.7)",
    "Pow($p, 0.5)",
    "Pow($p, $t)",
    "Div($t, $p)",
    "Div($x, $p)",
];

const REDUCTIONS: &[&str] = &[
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSumExp",
];

/// A graph under construction, in the text form of [`Case`].
pub struct Draft {
    random: Random,
    opset: i64,
    weights: Vec<String>,
    lines: Vec<String>,
    /// Every tensor so far, its shape, and whether something reads it.
    tensors: Vec<(String, Vec<usize>, bool)>,
}

/// The case of a seed.
pub fn case(seed: usize) -> Case {
    let mut draft = Draft::new(seed);
    let steps = 3 + draft.below(6);
    for _ in 0..steps {
        draft.step();
    }
    draft.finish(seed)
}

impl Draft {
    fn new(seed: usize) -> Self {
        let mut random = Random::new(&format!("draft {seed}"));
        let opset = [13, 14, 17, 18, 20, 21][(random.unit() * 6.0) as usize];
        let mut draft =
            Self { random, opset, weights: Vec::new(), lines: Vec::new(), tensors: Vec::new() };
        let rank = 1 + draft.below(4);
        let shape = draft.shape(rank);
        draft.weight(&shape);
        draft
    }

    pub(super) fn opset(&self) -> i64 {
        self.opset
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        (self.random.unit() * count as f64) as usize
    }

    pub(super) fn chance(&mut self, share: f64) -> bool {
        self.random.unit() < share
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn shape(&mut self, rank: usize) -> Vec<usize> {
        (0..rank).map(|_| 1 + self.below(4)).collect()
    }

    /// A fresh weight; one of four is frozen.
    pub(super) fn weight(&mut self, shape: &[usize]) -> String {
        self.weight_within(shape, "-1.2..1.2")
    }

    pub(super) fn weight_within(&mut self, shape: &[usize], range: &str) -> String {
        let name = format!("w{}", self.weights.len());
        let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
        let frozen = if !self.weights.is_empty() && self.chance(0.25) { "~" } else { "" };
        self.weights.push(format!("{frozen}{name}:{}@{range}", dims.join("x")));
        self.tensors.push((name.clone(), shape.to_vec(), false));
        name
    }

    /// Appends a node, written without its output; yields the name of the result.
    pub(super) fn push(&mut self, text: &str, shape: Vec<usize>) -> String {
        let name = self.fresh();
        self.read(text);
        self.lines.push(format!("{name} = {text}"));
        self.tensors.push((name.clone(), shape, false));
        name
    }

    /// As [`Draft::push`], for a node of two float outputs.
    pub(super) fn push_two(&mut self, text: &str, shapes: [Vec<usize>; 2]) {
        let name = self.fresh();
        self.read(text);
        self.lines.push(format!("{name}, {name}b = {text}"));
        let [first, second] = shapes;
        self.tensors.push((name.clone(), first, false));
        self.tensors.push((format!("{name}b"), second, false));
    }

    /// As [`Draft::push`], for a node whose second output holds integers.
    pub(super) fn push_indexed(&mut self, text: &str, shape: Vec<usize>) {
        let name = self.fresh();
        self.read(text);
        self.lines.push(format!("{name}, {name}b = {text}"));
        self.tensors.push((name, shape, false));
    }

    fn fresh(&self) -> String {
        format!("t{}", self.lines.len())
    }

    fn read(&mut self, text: &str) {
        let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        for (known, _, read) in &mut self.tensors {
            *read |= words.contains(&known.as_str());
        }
    }

    /// One of the tensors so far, rather a late one.
    fn any(&mut self) -> (String, Vec<usize>) {
        let last = self.tensors.len() - 1;
        let index = if self.chance(0.7) { last } else { self.below(last + 1) };
        let (name, shape, _) = &self.tensors[index];
        (name.clone(), shape.clone())
    }

    fn step(&mut self) {
        let (x, shape) = self.any();
        if shape.iter().product::<usize>() > ELEMENTS {
            self.reduce(&x, &shape);
            return;
        }
        match self.below(11) {
            0 | 1 => self.unary(&x, &shape),
            2 => self.guarded(&x, &shape),
            3 | 4 => self.binary(&x, &shape),
            5 => self.product(&x, &shape),
            6 => self.layout(&x, &shape),
            7 => self.selection(&x, &shape),
            8 => self.reduce(&x, &shape),
            9 => self.spatial(&x, &shape),
            _ => self.normalise(&x, &shape),
        }
    }

    fn unary(&mut self, x: &str, shape: &[usize]) {
        let opset = self.opset;
        let fitting: Vec<&str> = SMOOTH
            .iter()
            .filter(|(text, least)| {
                *least <= opset && (shape.len() >= 2 || !text.starts_with("Trilu"))
            })
            .map(|(text, _)| *text)
            .collect();
        let text = self.pick(&fitting).replace("(x", &format!("({x}"));
        if !shape.is_empty() {
            self.push(&text, shape.to_vec());
        }
    }

    fn guarded(&mut self, x: &str, shape: &[usize]) {
        let mut text = self.pick(GUARDED).replace("$x", x);
        if text.contains("$p") {
            let square = self.push(&format!("Mul({x}, {x})"), shape.to_vec());
            let positive = self.push(&format!("Add({square}, 0.5)"), shape.to_vec());
            text = text.replace("$p", &positive);
        }
        if text.contains("$t") {
            let tanh = self.push(&format!("Tanh({x})"), shape.to_vec());
            text = text.replace("$t", &tanh);
        }
        self.push(&text, shape.to_vec());
    }

    /// A partner that broadcasts with the shape: another tensor, the tensor itself, or a fresh weight.
    fn partner(&mut self, shape: &[usize]) -> (String, Vec<usize>) {
        let fitting: Vec<usize> = (0..self.tensors.len())
            .filter(|index| broadcast(shape, &self.tensors[*index].1).is_some())
            .collect();
        if !fitting.is_empty() && self.chance(0.5) {
            let index = self.pick(&fitting);
            let (name, shape, _) = &self.tensors[index];
            return (name.clone(), shape.clone());
        }
        let drop = self.below(shape.len() + 1);
        let mut other: Vec<usize> = shape[drop..].to_vec();
        for dim in &mut other {
            if self.chance(0.3) {
                *dim = 1;
            }
        }
        if self.chance(0.2) {
            other = [&self.shape(1), shape].concat();
        }
        (self.weight(&other), other)
    }

    fn binary(&mut self, x: &str, shape: &[usize]) {
        let (y, other) = self.partner(shape);
        let Some(result) = broadcast(shape, &other) else { return };
        let (a, b) = if self.chance(0.5) { (x, y.as_str()) } else { (y.as_str(), x) };
        let text = match self.below(9) {
            0 => format!("Add({a}, {b})"),
            1 => format!("Sub({a}, {b})"),
            2 | 3 => format!("Mul({a}, {b})"),
            4 => format!("Max({a}, {b})"),
            5 => format!("Min({a}, {b})"),
            6 => format!("Sum({a}, {b}, {a})"),
            7 => format!("Mean({a}, {b})"),
            _ => {
                let mask = format!("m{}", self.lines.len());
                self.lines.push(format!("{mask} = Greater({a}, 0.1)"));
                format!("Where({mask}, {a}, {b})")
            }
        };
        self.push(&text, result);
    }

    fn product(&mut self, x: &str, shape: &[usize]) {
        let columns = 1 + self.below(3);
        match (self.below(5), shape) {
            (0, [.., k]) if shape.len() >= 2 => {
                let w = self.weight(&[*k, columns]);
                let mut result = shape.to_vec();
                result[shape.len() - 1] = columns;
                self.push(&format!("MatMul({x}, {w})"), result);
            }
            (1, [.., m, _]) if shape.len() >= 3 => {
                let mut left = shape.to_vec();
                (left[shape.len() - 2], left[shape.len() - 1]) = (columns, *m);
                if self.chance(0.5) {
                    left[0] = 1;
                }
                let w = self.weight(&left);
                let mut result = shape.to_vec();
                result[shape.len() - 2] = columns;
                self.push(&format!("MatMul({w}, {x})"), result);
            }
            (2, [m, k]) => {
                let turned = self.chance(0.5);
                let w = self.weight(&if turned { [columns, *k] } else { [*k, columns] });
                let bias = self.weight(&[columns]);
                let turn = if turned { " transB=1" } else { "" };
                self.push(&format!("Gemm({x}, {w}, {bias}) alpha=0.7{turn}"), vec![*m, columns]);
            }
            (3, [b, k]) => {
                let w = self.weight(&[*k, *b, columns]);
                self.push(&format!("Einsum({x}, {w}) equation=bk,kbj->bj"), vec![*b, columns]);
            }
            (4, [k]) => {
                let w = self.weight(&[*k, columns]);
                self.push(&format!("MatMul({x}, {w})"), vec![columns]);
            }
            (_, [b, q, d]) => {
                let w = self.weight(&[*b, columns, *d]);
                self.push(
                    &format!("Einsum({x}, {w}) equation=bqd,bkd->bqk"),
                    vec![*b, *q, columns],
                );
            }
            _ => self.binary(x, shape),
        }
    }

    fn reduce(&mut self, x: &str, shape: &[usize]) {
        if shape.is_empty() {
            return;
        }
        let axis = self.below(shape.len());
        let keep = self.chance(0.5);
        let op = self.pick(REDUCTIONS);
        let written = if self.chance(0.5) { axis as i64 } else { axis as i64 - shape.len() as i64 };
        // Axes became an input of ReduceSum at operator set 13, of the others at 18.
        let text = if op == "ReduceSum" || self.opset >= 18 {
            format!("{op}({x}, [{written}]) keepdims={}", i64::from(keep))
        } else {
            format!("{op}({x}) axes=[{written}] keepdims={}", i64::from(keep))
        };
        let mut result = shape.to_vec();
        if keep {
            result[axis] = 1;
        } else {
            result.remove(axis);
        }
        self.push(&text, result);
    }

    fn finish(mut self, seed: usize) -> Case {
        // What nothing reads yet adds its mean, so that every weight reaches the loss.
        let loose: Vec<String> = self
            .tensors
            .iter()
            .filter(|(_, _, read)| !read)
            .map(|(name, ..)| name.clone())
            .collect();
        let (mut sum, shape, _) = self.tensors[self.tensors.len() - 1].clone();
        let last = sum.clone();
        for name in loose.iter().filter(|name| **name != last) {
            let mean = self.push(&format!("ReduceMean({name}) keepdims=0"), Vec::new());
            self.lines.push(format!("s{} = Add({sum}, {mean})", self.lines.len()));
            sum = format!("s{}", self.lines.len() - 1);
        }
        self.lines.push(format!("y = Identity({sum})"));
        let loss = super::rules::LOSSES[seed % super::rules::LOSSES.len()];
        // A cross-entropy of one class is zero whatever the weights.
        let loss = if shape.iter().product::<usize>() < 2 { super::rules::LOSSES[2] } else { loss };
        Case::new(&format!("seed {seed}"), &self.weights.join(" "), &self.lines.join("; "))
            .opset(self.opset)
            .loss(loss)
    }
}

/// The shape of two broadcast operands, where they fit.
fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at =
        |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    let pairs = (0..rank).map(|i| (at(a, i), at(b, i)));
    pairs
        .map(|pair| match pair {
            (x, y) if x == y || y == 1 => Some(x),
            (1, y) => Some(y),
            _ => None,
        })
        .collect()
}
