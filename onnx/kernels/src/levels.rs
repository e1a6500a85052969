//! `DynamicQuantizeLinear`, written so that the compiler makes vectors of it: four comparisons a step, no call and no
//! conversion that saturates.

/// How many running extremes are kept, so that they fit vectors.
const LANES: usize = 8;

/// Adding and subtracting it rounds to whole numbers, ties to even, because float32 has no finer steps there.
const ROUNDING: f32 = 1.5 * (1 << 23) as f32;

/// The levels with the zero point subtracted again, within ±255, and what one level is worth.
pub fn quantise(values: &[f32]) -> (Vec<i16>, f32) {
    let (least, most) = extremes(values);
    // Where everything is 0, any scale will do.
    let scale = if most > least { (most - least) / 255.0 } else { 1.0 };
    let zero = (-least / scale).round_ties_even().clamp(0.0, 255.0);
    let (low, high) = (-zero, 255.0 - zero);
    let level = |value: &f32| {
        let ratio = value / scale;
        // What is not a number counts as the lowest level.
        let ratio = if ratio > low { ratio } else { low };
        let ratio = if ratio < high { ratio } else { high };
        ((ratio + ROUNDING).to_bits().wrapping_sub(ROUNDING.to_bits())) as i16
    };
    (values.iter().map(level).collect(), scale)
}

/// The smallest and the largest value, each at least as far out as 0.
fn extremes(values: &[f32]) -> (f32, f32) {
    let smaller = |a: f32, b: f32| if b < a { b } else { a };
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (mut least, mut most) = ([0f32; LANES], [0f32; LANES]);
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            least[lane] = smaller(least[lane], chunk[lane]);
            most[lane] = larger(most[lane], chunk[lane]);
        }
    }
    let least = least.into_iter().chain(rest.iter().copied()).fold(0f32, smaller);
    let most = most.into_iter().chain(rest.iter().copied()).fold(0f32, larger);
    (least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_the_specification() {
        // The example of the operator's own documentation: scale 0.019607844, zero point 153.
        let (levels, scale) = quantise(&[0.0, 2.0, -3.0, -2.5, 1.34, 0.5]);
        assert_eq!(scale, 5.0 / 255.0);
        let shifted: Vec<i16> = levels.iter().map(|level| level + 153).collect();
        assert_eq!(shifted, [153, 255, 0, 26, 221, 179]);
    }

    #[test]
    fn nothing_but_zeros_stays_zero() {
        assert_eq!(quantise(&[0.0; 3]), (vec![0; 3], 1.0));
    }

    #[test]
    fn many_values_are_rounded_as_one_by_one() {
        let values: Vec<f32> =
            (0..1003).map(|i| ((i * 7919) % 2003) as f32 / 77.0 - 11.0).collect();
        let (levels, scale) = quantise(&values);
        let least = values.iter().copied().fold(0f32, f32::min);
        let zero = (-least / scale).round_ties_even();
        for (value, level) in values.iter().zip(levels) {
            let expected = (value / scale).round_ties_even().clamp(-zero, 255.0 - zero);
            assert_eq!(f32::from(level), expected, "{value}");
        }
    }
}
