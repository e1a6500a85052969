//! A primary in segments, with patches.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;

use backstitch_client::analysis::{FeatureVector, analyse};
use backstitch_client::input::Input;
use backstitch_client::library::Version;
use backstitch_client::preprocessing::Preprocessing;
use backstitch_client::selection::{Candidate, Choice, CostLimit, Meanings, select};
use backstitch_client::session::{Compiled, Plan, Session, Stitched};
use backstitch_onnx::patch::{Gain, Patch, Selector};
use backstitch_onnx::stitch::stitch;
use backstitch_onnx::{Digest, Model, Value};
use backstitch_protocol::id::Name;
use wasm_bindgen::JsError;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::thrown;

/// What a patch is assumed to take, until it is measured.
const COST_MS: f64 = 0.3;

/// A primary, cut at some sites, and its patches.
#[wasm_bindgen]
pub struct Stitching {
    pub(crate) session: Session,
    pub(crate) patches: Vec<Arc<Patch>>,
    versions: Vec<Version>,
    input: Option<Value>,
}

#[wasm_bindgen]
impl Stitching {
    /// Cuts a primary and compiles its segments.
    #[wasm_bindgen(constructor)]
    pub fn new(
        file: &[u8],
        input: &str,
        output: &str,
        sites: Vec<String>,
    ) -> Result<Stitching, JsError> {
        let model = Model::from_bytes(file).map_err(thrown)?;
        let model = model.extract(&[input], &[output]).map_err(thrown)?;
        let sites: BTreeSet<String> = sites.into_iter().collect();
        let session = Session::compile(model, Digest::of(file), input, output, &sites);
        let session = session.map_err(thrown)?;
        Ok(Self { session, patches: Vec::new(), versions: Vec::new(), input: None })
    }

    /// Takes a patch from its bytes until it is ready to run.
    pub fn add(&mut self, manifest: &[u8], graph: &[u8]) -> Result<(), JsError> {
        let version = self.ready(manifest, graph)?;
        self.patches.push(version.patch.clone());
        self.versions.push(version);
        Ok(())
    }

    /// The same without keeping it, to be timed.
    pub fn try_out(&self, manifest: &[u8], graph: &[u8]) -> Result<(), JsError> {
        drop(black_box(self.ready(manifest, graph)?));
        Ok(())
    }

    /// Sets the input.
    pub fn feed(&mut self, values: &[f32]) -> Result<(), JsError> {
        let shape = self.session.input().1;
        self.input = Some(self.session.feed(shape, values).map_err(thrown)?);
        Ok(())
    }

    /// Runs with the patches whose bits are set.
    pub fn run(&self, set: u32) -> Result<Vec<f32>, JsError> {
        let input = self.input.as_ref().ok_or_else(|| thrown("feed first"))?;
        let chosen: Vec<Stitched> = self.chosen(set).map(Version::stitched).collect();
        let plan = self.plan(set)?;
        let ran = self.session.run(&plan, &chosen, input, None, &|| 0.0).map_err(thrown)?;
        Ok(ran.output.f32s().map_err(thrown)?.to_vec())
    }

    /// Switches `count` times from one set of patches to the next.
    pub fn switches(&self, count: u32) -> Result<(), JsError> {
        for step in 0..count {
            black_box(self.plan(step % (1 << self.versions.len()))?);
        }
        Ok(())
    }

    /// Takes new weights into a patch `count` times.
    pub fn new_weights(&mut self, index: usize, count: u32) -> Result<(), JsError> {
        let version = self.versions.get(index).ok_or_else(|| thrown("no such patch"))?;
        let mut latest = version.clone();
        let tensors = version.patch.weights();
        for _ in 0..count {
            latest = latest.with_weights(&self.session, tensors.clone()).map_err(thrown)?;
        }
        self.versions[index] = latest;
        Ok(())
    }

    /// Measures the input as a picture and selects among the patches, `count` times.
    pub fn choose(&self, preprocessing: &str, values: &[f32], count: u32) -> Result<u32, JsError> {
        let json = serde_json::from_str(preprocessing).map_err(thrown)?;
        let preprocessing = Preprocessing::from_json(&json).map_err(thrown)?;
        let preparation = preprocessing.complete(&[]).map_err(thrown)?;
        let shape = self.session.input().1;
        let input = Input::tensor(shape.to_vec(), values.to_vec()).map_err(thrown)?;
        let prepared = preparation.prepare(&input, shape).map_err(thrown)?;
        let candidates: Vec<Candidate<'_>> =
            self.versions.iter().map(|v| v.candidate(COST_MS)).collect();
        let limit = CostLimit { ms: Some(20.0), ..CostLimit::default() };
        let mut chosen = 0;
        for _ in 0..count {
            let features = analyse(black_box(&prepared.subject));
            let selection = select(&features, &candidates, &limit, 1.0, &Choice::Auto);
            chosen = selection.map_err(thrown)?.chosen().map(|index| 1 << index).sum();
        }
        Ok(chosen)
    }

    /// Selects among `candidates` made up patches whose costs and gains follow each other, so that hardly any set is better
    /// than all others, `count` times. The limit lets about half of them in.
    pub fn choose_among(&self, candidates: u32, count: u32) -> Result<u32, JsError> {
        let drawn: Vec<(Name, Selector, f64)> = (0..candidates)
            .map(|i| {
                let cost_ms = 1.0 + f64::from(i * 7919 % 101) / 1000.0;
                let gain = Gain { intercept: cost_ms / 10.0, ..Gain::default() };
                let name = Name::new(format!("patch-{i}")).map_err(thrown)?;
                Ok((name, Selector { gain, ..Selector::default() }, cost_ms))
            })
            .collect::<Result<_, JsError>>()?;
        let candidates: Vec<Candidate<'_>> = drawn
            .iter()
            .map(|(name, selector, cost_ms)| Candidate {
                name,
                selector,
                has_effect: true,
                fault: None,
                cost_ms: *cost_ms,
                cost_bytes: 1,
                sites: &[],
                replaces: &[],
                bypasses: &[],
                correction: 0.0,
                meanings: Meanings::NONE,
            })
            .collect();
        let total: f64 = drawn.iter().map(|(_, _, ms)| ms).sum();
        let limit = CostLimit { ms: Some(1.0 + total / 2.0), ..CostLimit::default() };
        let mut chosen = 0;
        for _ in 0..count {
            let features = FeatureVector::default();
            let selection = select(&features, black_box(&candidates), &limit, 1.0, &Choice::Auto);
            chosen = selection.map_err(thrown)?.chosen().count() as u32;
        }
        Ok(chosen)
    }

    /// The same set as one plain ONNX file, for a runtime that cannot switch.
    pub fn stitched(&self, set: u32) -> Result<Vec<u8>, JsError> {
        let chosen: Vec<&Patch> = self.chosen(set).map(|version| &*version.patch).collect();
        Ok(stitch(self.session.model(), &chosen).map_err(thrown)?.to_bytes())
    }

    fn ready(&self, manifest: &[u8], graph: &[u8]) -> Result<Version, JsError> {
        let patch = Patch::from_parts(manifest, graph, None).map_err(thrown)?;
        let compiled = Compiled::new(&self.session, &patch).map_err(thrown)?;
        compiled.ready().map_err(thrown)?;
        let weights = compiled.weights(&self.session, &patch).map_err(thrown)?;
        let name = Name::new(patch.manifest().name.as_str()).map_err(thrown)?;
        let (compiled, weights) = (Arc::new(compiled), Arc::new(weights));
        Version::new(&self.session, name, 1, Arc::new(patch), compiled, weights).map_err(thrown)
    }

    fn chosen(&self, set: u32) -> impl Iterator<Item = &Version> {
        let bit = move |(index, _): &(usize, &Version)| set & (1 << index) != 0;
        self.versions.iter().enumerate().filter(bit).map(|(_, version)| version)
    }

    fn plan(&self, set: u32) -> Result<Plan<'_>, JsError> {
        let compiled: Vec<&Compiled> = self.chosen(set).map(|v| &*v.compiled).collect();
        Plan::of(&self.session, &compiled).map_err(thrown)
    }
}
