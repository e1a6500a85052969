//! Repeats that an `Expand` made are written out before a product reads them. The engine would let the product read the
//! operand unrepeated, and then fails to merge the axes that it sums over. It looks through layout and element-wise
//! operators, not through a maximum.

use std::collections::{BTreeMap, BTreeSet};

use super::Lowering;
use super::products::PRODUCTS;

/// What the engine does not look through, though it keeps the shape or reads its first input whole.
fn stops(op: &str) -> bool {
    op.starts_with("Reduce")
        || op.ends_with("Normalization")
        || op.contains("Pool")
        || PRODUCTS.contains(&op)
        || matches!(op, "Max" | "Min" | "Shape" | "Size" | "Softmax" | "Tile" | "TopK")
}

/// Lets the products among the lowered nodes read settled operands.
pub(super) fn write_out(lowering: &mut Lowering<'_>) {
    let mut repeated: BTreeSet<String> = BTreeSet::new();
    let mut settled: BTreeMap<String, String> = BTreeMap::new();
    for mut node in std::mem::take(&mut lowering.nodes) {
        let reads_repeats = node.inputs.iter().any(|name| repeated.contains(name));
        if reads_repeats && PRODUCTS.contains(&node.op.as_str()) {
            for input in node.inputs.iter_mut().filter(|name| repeated.contains(*name)) {
                *input = settle(lowering, &mut settled, input);
            }
        } else if node.op == "Expand" || (reads_repeats && !stops(&node.op)) {
            repeated.extend(node.outputs.iter().cloned());
        }
        lowering.nodes.push(node);
    }
}

fn settle(
    lowering: &mut Lowering<'_>,
    settled: &mut BTreeMap<String, String>,
    name: &str,
) -> String {
    if let Some(known) = settled.get(name) {
        return known.clone();
    }
    let lowest = lowering.scalar_like(f32::MIN, name);
    let written = lowering.emit("Max", &[name, &lowest], &[]);
    settled.insert(name.to_owned(), written.clone());
    written
}
