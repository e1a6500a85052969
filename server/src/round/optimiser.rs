//! The server's optimiser: from a noised mean update to new weights. Post-processing; it costs no privacy.

use std::collections::BTreeMap;

use backstitch_onnx::Tensor;
use backstitch_onnx::patch::Patch;

use crate::failure::{Result, internal};

/// The trainable values of a task's patches, in the order that client and server share: patch by patch, and
/// within a patch tensor by tensor in byte order of their names.
pub(crate) fn parameters(patches: &[Patch]) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for tensor in patches.iter().flat_map(|patch| patch.weights().into_values()) {
        all.extend(tensor.values::<f32>()?);
    }
    Ok(all)
}

/// The inverse of [`parameters`]: the same patches with other values. Values that are not finite are refused.
pub(crate) fn with_parameters(patches: &[Patch], values: &[f32]) -> Result<Vec<Patch>> {
    let mut rest = values;
    let mut changed = Vec::new();
    for patch in patches {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in patch.weights() {
            let (own, after) = rest
                .split_at_checked(tensor.len())
                .ok_or_else(|| internal("too few parameters"))?;
            tensors.insert(name, Tensor::new(tensor.shape().to_vec(), own)?);
            rest = after;
        }
        changed.push(patch.with_weights(tensors)?);
    }
    match rest.is_empty() {
        true => Ok(changed),
        false => Err(internal(format!("{} parameters too many", rest.len()))),
    }
}

/// Heavy-ball momentum on the mean update (Hsu, Qi, Brown 2019): v ← m·v + Δ, w ← w + η·v.
pub(crate) struct Optimiser {
    /// η.
    pub(crate) learning_rate: f64,
    /// m, in [0, 1).
    pub(crate) momentum: f64,
    /// v; empty before the first step.
    pub(crate) velocity: Vec<f32>,
}

impl Optimiser {
    /// Takes one step. A velocity of other parameters is forgotten.
    pub(crate) fn step(&mut self, parameters: &mut [f32], mean: &[f32]) {
        if self.velocity.len() != parameters.len() {
            self.velocity = vec![0.0; parameters.len()];
        }
        for ((weight, velocity), update) in parameters.iter_mut().zip(&mut self.velocity).zip(mean)
        {
            *velocity = (self.momentum * f64::from(*velocity)) as f32 + update;
            *weight += (self.learning_rate * f64::from(*velocity)) as f32;
        }
    }

    /// The stored form of the velocity: f32 little-endian.
    pub(crate) fn velocity_bytes(&self) -> Vec<u8> {
        self.velocity.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    /// Reads the stored form.
    pub(crate) fn velocity_from(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

/// The L2 norm.
pub(crate) fn norm(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_in_byte_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        crate::tests::write_library(folder.path(), 1, |_| {});
        let read =
            |file: &str| std::fs::read(folder.path().join("patches/style").join(file)).unwrap();
        let patch = Patch::from_parts(&read("patch.json"), &read("patch.onnx"), None).unwrap();
        let patches = [patch.clone(), patch];
        assert_eq!(parameters(&patches).unwrap()[..8], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
        let values: Vec<f32> = (0..16u8).map(f32::from).collect();
        let changed = with_parameters(&patches, &values).unwrap();
        let names: Vec<String> = changed[1].weights().into_keys().collect();
        assert!(names.is_sorted() && names[0].contains("bias"), "{names:?}");
        assert_eq!(parameters(&changed).unwrap(), values);
        assert!(with_parameters(&patches, &values[1..]).is_err());
        assert!(with_parameters(&patches, &[f32::NAN; 16]).is_err());
    }

    #[test]
    fn momentum_repeats_a_share_of_the_last_step() {
        let mut optimiser = Optimiser { learning_rate: 0.5, momentum: 0.5, velocity: Vec::new() };
        let mut weights = vec![0.0, 1.0];
        optimiser.step(&mut weights, &[1.0, 0.0]);
        assert_eq!(weights, [0.5, 1.0]);
        optimiser.step(&mut weights, &[0.0, 0.0]);
        assert_eq!(weights, [0.75, 1.0]);
        assert_eq!(Optimiser::velocity_from(&optimiser.velocity_bytes()), [0.5, 0.0]);
    }
}
