//! The best labels of an answer.

use crate::report::Ranked;

/// Labels that a result names.
const TOP: usize = 5;

/// The names that the answer's places have. Fewer names than places are those of a head of the user's own, whose classes
/// take the first places; what the primary alone means by these places, nobody has said.
pub(super) fn named_places<'a>(
    labels: &'a [String],
    output: &[f32],
    is_stitched: bool,
) -> &'a [String] {
    match labels.len() == output.len() || (is_stitched && labels.len() < output.len()) {
        true => labels,
        false => &[],
    }
}

/// The best of the named places by softmax.
pub(super) fn ranked(labels: &[String], output: &[f32]) -> Vec<Ranked> {
    let top = output.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> = output.iter().map(|v| f64::from(v - top).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by(|a, b| output[*b].total_cmp(&output[*a]).then(a.cmp(b)));
    let named = |index: usize| Ranked {
        index,
        label: labels[index].clone(),
        score: exponentials[index] / sum,
    };
    order.into_iter().take(TOP).map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_of_the_users_own_names_its_first_places() {
        let labels: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        let top = |output: &[f32], is_stitched| {
            let ranked = ranked(named_places(&labels, output, is_stitched), output);
            ranked.into_iter().map(|r| (r.label, r.index)).collect::<Vec<_>>()
        };
        let all = [("b", 1), ("c", 2), ("a", 0)].map(|(label, index)| (label.to_owned(), index));
        assert_eq!(top(&[0.0, 2.0, 1.0], false), all);
        assert_eq!(top(&[0.0, 2.0, 1.0, -9.0, 5.0], true), all);
        // Five places of the primary's own are not these three.
        assert!(top(&[0.0, 2.0, 1.0, -9.0, 5.0], false).is_empty());
        assert!(top(&[0.0, 2.0], true).is_empty());
    }
}
