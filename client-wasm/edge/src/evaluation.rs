//! How good a device's model is on labelled pictures: the primary alone, with the shared patches, with its own.

use backstitch_client::client::{RunOptions, WeightChoice};
use backstitch_client::selection::Choice;
use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use futures::executor::block_on;
use serde::Serialize;

use crate::data::Pictures;
use crate::node::{Labelled, Node};

/// Shares of right answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Accuracy {
    /// The primary alone.
    pub primary: f64,
    /// With the patch and the shared weights.
    pub shared: f64,
    /// With the patch and what was trained on this device; equal to `shared` where nothing was.
    pub personal: f64,
    /// Pictures.
    pub n: usize,
}

/// Measures one patch, stitched into every answer.
pub fn accuracy(node: &Node, patch: &Name, pictures: &[Labelled]) -> Result<Accuracy, Problem> {
    let (mut primary, mut shared, mut personal) = (0usize, 0usize, 0usize);
    for picture in pictures {
        let run = |weights, compare| {
            let choice = Choice::Named(vec![patch.clone()]);
            let options = RunOptions { choice, compare, weights, ..RunOptions::default() };
            block_on(node.client().run(&picture.input, &options, &|| false))
        };
        let right = |top: &[backstitch_client::report::Ranked]| {
            usize::from(top.first().is_some_and(|best| picture.class() == Some(best.index)))
        };
        let with_shared = run(WeightChoice::Shared, true)?;
        primary += right(with_shared.base_top.as_deref().unwrap_or_default());
        shared += right(&with_shared.top);
        personal += right(&run(WeightChoice::Personal, false)?.top);
    }
    let share = |count: usize| count as f64 / pictures.len().max(1) as f64;
    Ok(Accuracy {
        primary: share(primary),
        shared: share(shared),
        personal: share(personal),
        n: pictures.len(),
    })
}

/// The first `count` pictures, all turned by these degrees.
pub fn turned(pictures: &Pictures, count: usize, degrees: f64) -> Result<Vec<Labelled>, Problem> {
    (0..count.min(pictures.len())).map(|i| crate::person::turned(pictures, i, degrees)).collect()
}
