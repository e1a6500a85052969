//! Random numbers of the distributions that a fleet needs, from one seeded generator.

use backstitch_client::random::SplitMix;

/// A standard normal number (Box, Muller 1958).
pub fn normal(draws: &mut SplitMix) -> f64 {
    let radius = (-2.0 * (1.0 - draws.uniform()).ln()).sqrt();
    radius * (std::f64::consts::TAU * draws.uniform()).cos()
}

/// A log-normal number: its logarithm has mean 0 and this deviation.
pub(crate) fn lognormal(deviation: f64, draws: &mut SplitMix) -> f64 {
    (deviation * normal(draws)).exp()
}

/// A Gamma(shape, 1) number (Marsaglia, Tsang 2000; shapes below 1 by their §6).
fn gamma(shape: f64, draws: &mut SplitMix) -> f64 {
    if shape < 1.0 {
        let boost = (1.0 - draws.uniform()).powf(1.0 / shape);
        return gamma(shape + 1.0, draws) * boost;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(draws);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - draws.uniform()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// Shares of `classes` classes from a symmetric Dirichlet distribution; they sum to 1.
pub(crate) fn dirichlet(classes: usize, concentration: f64, draws: &mut SplitMix) -> Vec<f64> {
    let raw: Vec<f64> = (0..classes).map(|_| gamma(concentration, draws)).collect();
    let sum: f64 = raw.iter().sum();
    match sum > 0.0 {
        true => raw.iter().map(|r| r / sum).collect(),
        // All underflowed, as tiny concentrations do: one class takes everything.
        false => {
            let winner = draws.below(classes);
            (0..classes).map(|c| f64::from(u8::from(c == winner))).collect()
        }
    }
}

/// `count` indices of items whose labels follow a mix drawn from a symmetric Dirichlet distribution. A device does
/// not own an item twice, unless its classes run out.
pub(crate) fn skewed(
    labels: &[u8],
    count: usize,
    concentration: f64,
    draws: &mut SplitMix,
) -> Vec<usize> {
    let classes = labels.iter().copied().max().map_or(0, |m| usize::from(m) + 1);
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for (index, label) in labels.iter().enumerate() {
        members[usize::from(*label)].push(index);
    }
    let shares = dirichlet(classes, concentration, draws);
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count && !labels.is_empty() {
        let mut point = draws.uniform();
        let class = shares.iter().position(|share| {
            point -= share;
            point < 0.0
        });
        let class = class.unwrap_or(classes - 1);
        match members[class].len() {
            0 => taken.push(draws.below(labels.len())),
            n => {
                let own = draws.below(n);
                taken.push(members[class].swap_remove(own));
            }
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut draws = SplitMix::new(1);
        let numbers: Vec<f64> = (0..50_000).map(|_| normal(&mut draws)).collect();
        let mean = numbers.iter().sum::<f64>() / 50_000.0;
        let variance = numbers.iter().map(|x| x * x).sum::<f64>() / 50_000.0;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }

    #[test]
    fn shares_have_the_variance_of_their_concentration() {
        let mut draws = SplitMix::new(2);
        for concentration in [0.1, 0.5, 5.0] {
            let shares: Vec<f64> =
                (0..4000).map(|_| dirichlet(10, concentration, &mut draws)[0]).collect();
            let mean = shares.iter().sum::<f64>() / 4000.0;
            let variance = shares.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / 4000.0;
            // α(α₀ − α)/(α₀²(α₀ + 1)) with α₀ = 10 α.
            let expected = 0.1 * 0.9 / (10.0 * concentration + 1.0);
            assert!((mean - 0.1).abs() < 0.02, "{mean}");
            assert!((variance / expected - 1.0).abs() < 0.2, "{variance} {expected}");
        }
    }

    #[test]
    fn a_device_has_its_own_mix_without_repetition() {
        let labels: Vec<u8> = (0..1000).map(|i| (i % 10) as u8).collect();
        let own = skewed(&labels, 50, 0.5, &mut SplitMix::new(3));
        let mut distinct = own.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!((own.len(), distinct.len()), (50, 50));
        assert_ne!(own, skewed(&labels, 50, 0.5, &mut SplitMix::new(4)));
        assert_eq!(own, skewed(&labels, 50, 0.5, &mut SplitMix::new(3)));
        assert_eq!(skewed(&labels[..3], 5, 0.5, &mut SplitMix::new(3)).len(), 5);
    }
}
