//! The exported class. Every method converts, calls the client, and converts back.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use backstitch_client::analysis::{self, FeatureVector};
use backstitch_client::catalog::Address;
use backstitch_client::client::{Options, Pending as Begun, Stream as Inputs};
use backstitch_client::preprocessing::Preprocessing;
use backstitch_client::report::{Preview, Progress, RunResult};
use backstitch_client::selection::CostLimit;
use backstitch_client::workshop::Workshop;
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use js_sys::{Float32Array, Function, Int16Array, Uint8Array};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::AbortSignal;

use crate::convert::{
    answer, input, limit, number, property, run_options, set, thrown, to_js, train_options,
};
use crate::port::BrowserPort;

/// Integers of a preview that are handed over; the frame has them all.
const PREVIEW_VALUES: usize = 4096;

/// One library, open in this worker.
#[wasm_bindgen]
pub struct Client {
    inner: Rc<backstitch_client::Client<BrowserPort>>,
    limit: CostLimit,
}

/// A run that has begun.
#[wasm_bindgen]
pub struct Pending(RefCell<Option<Begun>>);

/// Inputs that follow each other.
#[wasm_bindgen]
pub struct Stream(RefCell<Option<Inputs>>);

#[wasm_bindgen]
impl Client {
    /// Opens the library at `https://host/v1/libraries/name`: proves that the engine's kernels are there, loads and
    /// checks catalog and files, compiles, and reads what this device remembers.
    #[wasm_bindgen(unchecked_return_type = "Client")]
    pub async fn open(
        url: String,
        #[wasm_bindgen(unchecked_param_type = "OpenOptions | undefined")] options: JsValue,
        #[wasm_bindgen(unchecked_param_type = "((progress: OpenProgress) => void) | undefined")]
        progress: JsValue,
    ) -> Result<Client, JsValue> {
        let limit = limit(&options, CostLimit::default()).map_err(thrown)?;
        let persist = property(&options, "persist").is_none_or(|v| v.is_truthy());
        let given = Options {
            public_key: property(&options, "public_key").and_then(|v| v.as_string()),
            voucher: property(&options, "voucher").and_then(|v| v.as_string()),
            limit,
            workshop: Arc::new(workshop(&options).map_err(thrown)?),
        };
        let signal = signal(&options);
        // While the browser opens its stores, there is time to prove that the kernels are there.
        let proof = async { backstitch_onnx::engine::self_test() };
        let (port, proof) = futures::join!(BrowserPort::open(persist, signal.clone()), proof);
        proof.map_err(|e| thrown(e.into()))?;
        if let Some(answer) = property(&options, "catalog").and_then(|p| p.dyn_into().ok()) {
            port.hand_over(Address::new(&url).map_err(thrown)?.catalog(), answer);
        }
        let report = Callback::of(&progress);
        let progress = |progress: &Progress| report.call(progress);
        let cancelled = || aborted(&signal);
        let inner = backstitch_client::Client::open(port, &url, given, &progress, &cancelled).await;
        let inner = inner.map_err(thrown)?;
        inner.port().forget_signal();
        Ok(Self { inner: Rc::new(inner), limit })
    }

    /// Answers an input.
    #[wasm_bindgen(unchecked_return_type = "RunResult")]
    pub async fn run(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Input")] given: JsValue,
        #[wasm_bindgen(unchecked_param_type = "RunOptions | undefined")] options: JsValue,
    ) -> Result<JsValue, JsValue> {
        let client = self.inner.clone();
        let input = input(&given).map_err(thrown)?;
        let run = run_options(&options, self.limit).map_err(thrown)?;
        let signal = signal(&options);
        let result = client.run(&input, &run, &|| aborted(&signal)).await.map_err(thrown)?;
        run_result(&result)
    }

    /// Prepares an input and runs the first segment, so that another worker may analyse it meanwhile.
    pub fn begin(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Input")] given: JsValue,
    ) -> Result<Pending, JsValue> {
        let begun = input(&given).and_then(|input| self.inner.begin(&input)).map_err(thrown)?;
        Ok(Pending(RefCell::new(Some(begun))))
    }

    /// Ends what `begin` began, with features from another worker; `null` analyses here.
    #[wasm_bindgen(unchecked_return_type = "RunResult")]
    pub async fn finish(
        &self,
        pending: &Pending,
        #[wasm_bindgen(unchecked_param_type = "FeatureVector | null")] features: JsValue,
        #[wasm_bindgen(unchecked_param_type = "RunOptions | undefined")] options: JsValue,
    ) -> Result<JsValue, JsValue> {
        let run = run_options(&options, self.limit).map_err(thrown)?;
        let ended = || Problem::new(Code::InputInvalid, "this run was finished already");
        let begun = pending.0.borrow_mut().take().ok_or_else(|| thrown(ended()))?;
        let features: Option<FeatureVector> = match features.is_object() {
            true => Some(serde_wasm_bindgen::from_value(features).map_err(|e| {
                thrown(Problem::new(Code::InputInvalid, format!("these are no features: {e}")))
            })?),
            false => None,
        };
        let (client, signal) = (self.inner.clone(), signal(&options));
        let cancelled = || aborted(&signal);
        run_result(&client.finish(begun, features, &run, &cancelled).await.map_err(thrown)?)
    }

    /// Measures one patch that was never run here, on noise; `false` when there is none left.
    pub fn warm(&self) -> Result<bool, JsValue> {
        self.inner.warm().map_err(thrown)
    }

    /// Whether analysing in another worker, which answers after this many milliseconds, is expected to save time.
    pub fn overlap_pays(&self, handover_ms: f64) -> bool {
        self.inner.overlap_pays(handover_ms)
    }

    /// Measures an input without running the model.
    #[wasm_bindgen(unchecked_return_type = "FeatureVector")]
    pub fn analyse(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Input")] given: JsValue,
    ) -> Result<JsValue, JsValue> {
        to_js(&input(&given).and_then(|input| self.inner.analyse(&input)).map_err(thrown)?)
    }

    /// Keeps an example on this device.
    #[wasm_bindgen(unchecked_return_type = "LearnResult")]
    pub async fn learn(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Input")] given: JsValue,
        #[wasm_bindgen(unchecked_param_type = "string | number | Float32Array | number[]")] target: JsValue,
    ) -> Result<JsValue, JsValue> {
        let client = self.inner.clone();
        let (input, answer) = (input(&given).map_err(thrown)?, answer(&target).map_err(thrown)?);
        to_js(&client.learn(&input, &answer).await.map_err(thrown)?)
    }

    /// Trains on the examples of this device, with pauses, so that runs go on.
    #[wasm_bindgen(unchecked_return_type = "TrainReport")]
    pub async fn train(
        &self,
        #[wasm_bindgen(unchecked_param_type = "TrainOptions | undefined")] options: JsValue,
        #[wasm_bindgen(unchecked_param_type = "((progress: TrainProgress) => void) | undefined")]
        progress: JsValue,
    ) -> Result<JsValue, JsValue> {
        let client = self.inner.clone();
        let train = train_options(&options).map_err(thrown)?;
        let (signal, report) = (signal(&options), Callback::of(&progress));
        let done = client.train(&train, &|step| report.call(step), &|| aborted(&signal)).await;
        to_js(&done.map_err(thrown)?)
    }

    /// Trains for so many milliseconds, going on where an earlier slice or visit has ended; the report comes with the
    /// last slice, `null` before.
    #[wasm_bindgen(unchecked_return_type = "TrainReport | null")]
    pub async fn train_slice(
        &self,
        #[wasm_bindgen(unchecked_param_type = "TrainOptions | undefined")] options: JsValue,
        slice_ms: f64,
        #[wasm_bindgen(unchecked_param_type = "((progress: TrainProgress) => void) | undefined")]
        progress: JsValue,
    ) -> Result<JsValue, JsValue> {
        let client = self.inner.clone();
        let train = train_options(&options).map_err(thrown)?;
        let (signal, report) = (signal(&options), Callback::of(&progress));
        let (progress, cancelled) = (|step: &_| report.call(step), || aborted(&signal));
        let done = client.train_slice(&train, slice_ms, &progress, &cancelled).await;
        to_js(&done.map_err(thrown)?)
    }

    /// What an earlier visit has left of a training in slices, or `null`.
    #[wasm_bindgen(unchecked_return_type = "Unfinished | null")]
    pub async fn unfinished(&self) -> Result<JsValue, JsValue> {
        let client = self.inner.clone();
        to_js(&client.unfinished().await.map_err(thrown)?)
    }

    /// Gives up a training in slices.
    pub async fn abandon(&self) -> Result<(), JsValue> {
        let client = self.inner.clone();
        client.abandon().await.map_err(thrown)
    }

    /// Adapts patches that allow it to a list of inputs without answers.
    #[wasm_bindgen(unchecked_return_type = "AdaptReport")]
    pub async fn adapt(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Input[]")] given: js_sys::Array,
        #[wasm_bindgen(unchecked_param_type = "TrainOptions | undefined")] options: JsValue,
    ) -> Result<JsValue, JsValue> {
        let client = self.inner.clone();
        let inputs: Result<Vec<_>, Problem> = given.iter().map(|one| input(&one)).collect();
        let (inputs, how) = (inputs.map_err(thrown)?, train_options(&options).map_err(thrown)?);
        let signal = signal(&options);
        let done = client.adapt_to(&inputs, &how, &|| aborted(&signal)).await;
        to_js(&done.map_err(thrown)?)
    }

    /// A stream of this library's inputs: moments of a series, answered every `hop` of them, or frames.
    pub fn stream(&self, hop: usize) -> Result<Stream, JsValue> {
        self.inner.stream(hop).map(|inner| Stream(RefCell::new(Some(inner)))).map_err(thrown)
    }

    /// Adds moments or a frame to a stream, and answers what has become due.
    #[wasm_bindgen(unchecked_return_type = "RunResult[]")]
    pub async fn push(
        &self,
        stream: &Stream,
        #[wasm_bindgen(unchecked_param_type = "Input")] given: JsValue,
        #[wasm_bindgen(unchecked_param_type = "RunOptions | undefined")] options: JsValue,
    ) -> Result<JsValue, JsValue> {
        let client = self.inner.clone();
        let input = input(&given).map_err(thrown)?;
        let run = run_options(&options, self.limit).map_err(thrown)?;
        let signal = signal(&options);
        let busy = || Problem::new(Code::Conflict, "the stream is still at its last input");
        let mut inner = stream.0.borrow_mut().take().ok_or_else(|| thrown(busy()))?;
        let answers = client.push(&mut inner, &input, &run, &|| aborted(&signal)).await;
        stream.0.replace(Some(inner));
        let answers = answers.map_err(thrown)?;
        let results: Result<Vec<JsValue>, JsValue> = answers.iter().map(run_result).collect();
        Ok(results?.into_iter().collect::<js_sys::Array>().into())
    }

    /// Shows what would be contributed. Nothing is sent.
    #[wasm_bindgen(unchecked_return_type = "Preview")]
    pub async fn preview(&self) -> Result<JsValue, JsValue> {
        let client = self.inner.clone();
        preview_result(&client.preview().await.map_err(thrown)?)
    }

    /// Contributes, or says why not.
    #[wasm_bindgen(unchecked_return_type = "ContributeResult")]
    pub async fn contribute(&self) -> Result<JsValue, JsValue> {
        let client = self.inner.clone();
        to_js(&client.contribute().await.map_err(thrown)?)
    }

    /// Records whether the user agrees to contribute.
    #[wasm_bindgen(unchecked_return_type = "Privacy")]
    pub async fn consent(&self, agreed: bool) -> Result<JsValue, JsValue> {
        let client = self.inner.clone();
        to_js(&client.consent(agreed).await.map_err(thrown)?)
    }

    /// This device's privacy account.
    #[wasm_bindgen(unchecked_return_type = "Privacy")]
    pub async fn privacy(&self) -> Result<JsValue, JsValue> {
        let client = self.inner.clone();
        to_js(&client.privacy().await.map_err(thrown)?)
    }

    /// Asks for a newer catalog and switches to it; runs in flight end on what they began with.
    #[wasm_bindgen(unchecked_return_type = "RefreshResult")]
    pub async fn refresh(&self) -> Result<JsValue, JsValue> {
        let client = self.inner.clone();
        to_js(&client.refresh().await.map_err(thrown)?)
    }

    /// Deletes examples, personal weights and outcomes, unused tokens, and the files of this origin's libraries. The
    /// ledger stays.
    pub async fn forget(&self) -> Result<(), JsValue> {
        let client = self.inner.clone();
        client.forget().await.map_err(thrown)?;
        client.port().forget_files().await;
        Ok(())
    }

    /// The examples on this device.
    #[wasm_bindgen(unchecked_return_type = "ExampleCounts")]
    pub async fn examples(&self) -> Result<JsValue, JsValue> {
        let client = self.inner.clone();
        to_js(&client.examples().await.map_err(thrown)?)
    }

    /// The library's built-in samples as a file, or `null`.
    #[wasm_bindgen(unchecked_return_type = "Uint8Array | null")]
    pub async fn samples(&self) -> Result<JsValue, JsValue> {
        let client = self.inner.clone();
        let samples = client.samples().await.map_err(thrown)?;
        Ok(samples.map_or(JsValue::NULL, |bytes| Uint8Array::from(bytes.as_slice()).into()))
    }

    /// The primary as it is cut, with every patch that could be stitched.
    #[wasm_bindgen(unchecked_return_type = "Graph")]
    pub fn graph(&self) -> Result<JsValue, JsValue> {
        to_js(&self.inner.graph())
    }

    /// The library, as it runs on this device.
    #[wasm_bindgen(unchecked_return_type = "LibraryInfo")]
    pub fn library(&self) -> Result<JsValue, JsValue> {
        to_js(&self.inner.describe())
    }

    /// What compiled programs and weights take.
    #[wasm_bindgen(unchecked_return_type = "Memory")]
    pub fn memory(&self) -> Result<JsValue, JsValue> {
        to_js(&self.inner.memory())
    }

    /// Refuses everything from now on.
    pub fn close(&self) {
        self.inner.close();
    }
}

/// Where what the client compiles is kept: within a limit, where the caller says one.
fn workshop(options: &JsValue) -> Result<Workshop, Problem> {
    Ok(match number(options, "memory_limit_bytes")? {
        // Below 0 counts as 0, beyond 64 bits as no limit.
        Some(bytes) => Workshop::within(bytes as u64),
        None => Workshop::default(),
    })
}

/// Measures an input as `Client.run` would, in a worker that has no client. `preprocessing` is `library().preprocessing`.
#[wasm_bindgen(unchecked_return_type = "FeatureVector")]
pub fn analyse(
    #[wasm_bindgen(unchecked_param_type = "Input")] given: JsValue,
    preprocessing: JsValue,
) -> Result<JsValue, JsValue> {
    let unreadable = |e| Problem::new(Code::InputInvalid, format!("this is no preprocessing: {e}"));
    let value = serde_wasm_bindgen::from_value(preprocessing).map_err(|e| thrown(unreadable(e)))?;
    let features = input(&given).and_then(|input| {
        let subject = Preprocessing::from_json(&value)?.subject(&input)?;
        Ok(analysis::analyse(&subject))
    });
    to_js(&features.map_err(thrown)?)
}

/// A progress function that the page may have given.
struct Callback(Option<Function>);

impl Callback {
    fn of(value: &JsValue) -> Self {
        Self(value.dyn_ref::<Function>().cloned())
    }

    /// What the page's function throws is its own business.
    fn call(&self, value: &impl serde::Serialize) {
        if let (Some(function), Ok(value)) = (&self.0, to_js(value)) {
            let _theirs = function.call1(&JsValue::UNDEFINED, &value);
        }
    }
}

fn signal(options: &JsValue) -> Option<AbortSignal> {
    property(options, "signal")?.dyn_into().ok()
}

fn aborted(signal: &Option<AbortSignal>) -> bool {
    signal.as_ref().is_some_and(AbortSignal::aborted)
}

fn run_result(result: &RunResult) -> Result<JsValue, JsValue> {
    let value = to_js(result)?;
    set(&value, "output", &Float32Array::from(result.output.as_slice()).into());
    if let Some(base) = &result.base_output {
        set(&value, "base_output", &Float32Array::from(base.as_slice()).into());
    }
    Ok(value)
}

fn preview_result(preview: &Preview) -> Result<JsValue, JsValue> {
    let value = to_js(preview)?;
    set(&value, "frame", &Uint8Array::from(preview.frame.as_slice()).into());
    let shown = &preview.values[..preview.values.len().min(PREVIEW_VALUES)];
    set(&value, "values", &Int16Array::from(shown).into());
    Ok(value)
}
