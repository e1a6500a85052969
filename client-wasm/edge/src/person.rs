//! A simulated person: examples of their own, and the inputs of their every day.

use backstitch_client::input::Input;
use backstitch_client::random::SplitMix;
use backstitch_protocol::Problem;

use crate::data::Pictures;
use crate::node::Labelled;
use crate::sampling::skewed;
use crate::style::{Style, noisy, tilted};

/// Share of a person's everyday pictures that are noisy, and how much.
const NOISY: f64 = 0.5;
const NOISE_SIGMA: f64 = 0.2;

/// Most everyday inputs of one call.
const EVERYDAY: usize = 1000;

/// One person.
pub struct Person {
    examples: Vec<Labelled>,
    /// Whether everyday inputs are noisy at times: pictures are.
    noisy: bool,
    draws: SplitMix,
}

impl Person {
    /// A person with these examples.
    pub fn new(examples: Vec<Labelled>, seed: u64) -> Self {
        Self { examples, noisy: false, draws: SplitMix::new(seed) }
    }

    /// Draws a person with `count` of these pictures, the mix of classes from a symmetric Dirichlet distribution, all
    /// tilted in the person's own [`Style`].
    pub fn draw(
        pictures: &Pictures,
        count: usize,
        concentration: f64,
        seed: u64,
    ) -> Result<Self, Problem> {
        let mut draws = SplitMix::new(seed);
        let style = Style::draw(&mut draws);
        let own = skewed(pictures.labels(), count, concentration, &mut draws);
        let mut examples = Vec::with_capacity(count);
        for index in own {
            examples.push(turned(pictures, index, style.degrees(&mut draws))?);
        }
        Ok(Self { examples, noisy: true, draws })
    }

    /// Their examples.
    pub fn examples(&self) -> &[Labelled] {
        &self.examples
    }

    /// Inputs of their every day; of pictures, some are noisy.
    pub fn everyday(&mut self, count: usize) -> Result<Vec<Labelled>, Problem> {
        let mut taken = Vec::new();
        for _ in 0..count.min(EVERYDAY).min(self.examples.len() * EVERYDAY) {
            let mut one = self.examples[self.draws.below(self.examples.len())].clone();
            if let Input::Tensor { shape, values } = &one.input
                && self.noisy
                && self.draws.uniform() < NOISY
            {
                let values = noisy(values, NOISE_SIGMA, &mut self.draws);
                one.input = Input::tensor(shape.clone(), values)?;
            }
            taken.push(one);
        }
        Ok(taken)
    }
}

/// A picture with its class, turned by these degrees.
pub(crate) fn turned(pictures: &Pictures, index: usize, degrees: f64) -> Result<Labelled, Problem> {
    let upright = pictures.luminance(index);
    let pixels = match degrees == 0.0 {
        true => upright,
        false => tilted(&upright, pictures.width, pictures.height, degrees),
    };
    let input = Input::tensor(vec![pictures.height, pictures.width], pixels)?;
    Ok(Labelled::new(input, usize::from(pictures.labels()[index])))
}
