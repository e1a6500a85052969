//! Between JavaScript values and the client's types.

use backstitch_client::client::{Answer, RunOptions, TrainOptions, WeightChoice};
use backstitch_client::input::Input;
use backstitch_client::selection::{Choice, CostLimit};
use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use js_sys::{Array, Float32Array, Float64Array, Object, Reflect, Uint8Array, Uint8ClampedArray};
use serde::Serialize;
use wasm_bindgen::{JsCast, JsValue};

/// Most dimensions of a tensor.
const RANK: u32 = 8;

/// The thrown form of a problem: `{ code, message, hint }`.
pub(crate) fn thrown(problem: Problem) -> JsValue {
    let error = Object::new();
    set(&error, "code", &problem.code().into());
    set(&error, "message", &problem.detail().into());
    set(&error, "hint", &problem.hint().map_or(JsValue::NULL, JsValue::from));
    error.into()
}

/// Plain data as a JavaScript object; absent options become `null`.
pub(crate) fn to_js(value: &impl Serialize) -> Result<JsValue, JsValue> {
    value.serialize(&serde_wasm_bindgen::Serializer::json_compatible()).map_err(|e| {
        thrown(Problem::new(Code::Internal, format!("a result does not convert: {e}")))
    })
}

/// Sets a property of a plain object, which never fails.
pub(crate) fn set(object: &JsValue, name: &str, value: &JsValue) {
    let _always = Reflect::set(object, &name.into(), value);
}

/// A property, or `None` where it is absent or `undefined`.
pub(crate) fn property(object: &JsValue, name: &str) -> Option<JsValue> {
    if !object.is_object() {
        return None;
    }
    Reflect::get(object, &name.into()).ok().filter(|value| !value.is_undefined())
}

/// A property that must be a finite number where it is given.
pub(crate) fn number(object: &JsValue, name: &str) -> Result<Option<f64>, Problem> {
    match property(object, name).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => match value.as_f64().filter(|v| v.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(invalid(format!("`{name}` is no finite number"))),
        },
    }
}

/// The kinds of input of `types.d.ts`.
pub(crate) fn input(value: &JsValue) -> Result<Input, Problem> {
    if let Some(text) = value.as_string() {
        return Input::text(text);
    }
    if let Some(image) = property(value, "image") {
        let side = |name: &str| -> Result<u32, Problem> {
            let side = number(&image, name)?
                .filter(|s| s.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(s));
            side.map(|s| s as u32)
                .ok_or_else(|| invalid(format!("the picture's `{name}` is no whole number")))
        };
        let data = property(&image, "data").and_then(|data| bytes(&data));
        let data =
            data.ok_or_else(|| invalid("the picture's `data` is no Uint8ClampedArray".to_owned()))?;
        return Input::image(side("width")?, side("height")?, data);
    }
    let (Some(data), Some(shape)) = (property(value, "data"), property(value, "shape")) else {
        return Err(invalid("the input is no text, { image } or { data, shape }".to_owned())
            .with_hint("give a string, { image: { data, width, height } } or { data, shape }"));
    };
    let shape = dimensions(&shape)?;
    if let Some(values) = bytes(&data) {
        return Input::bytes(shape, values);
    }
    let values =
        floats(&data).ok_or_else(|| invalid("the input's `data` holds no numbers".to_owned()))?;
    Input::tensor(shape, values)
}

fn dimensions(shape: &JsValue) -> Result<Vec<usize>, Problem> {
    let wrong = || invalid("the input's `shape` is no list of up to 8 whole numbers".to_owned());
    let list: &Array =
        shape.dyn_ref().filter(|list: &&Array| list.length() <= RANK).ok_or_else(wrong)?;
    let dimension = |value: JsValue| {
        value
            .as_f64()
            .filter(|d| d.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(d))
            .map(|d| d as usize)
    };
    list.iter().map(|value| dimension(value).ok_or_else(wrong)).collect()
}

fn bytes(data: &JsValue) -> Option<Vec<u8>> {
    let clamped = || data.dyn_ref::<Uint8ClampedArray>().map(Uint8ClampedArray::to_vec);
    data.dyn_ref::<Uint8Array>().map(Uint8Array::to_vec).or_else(clamped)
}

fn floats(data: &JsValue) -> Option<Vec<f32>> {
    if let Some(array) = data.dyn_ref::<Float32Array>() {
        return Some(array.to_vec());
    }
    if let Some(array) = data.dyn_ref::<Float64Array>() {
        return Some(array.to_vec().into_iter().map(|v| v as f32).collect());
    }
    let list = data.dyn_ref::<Array>()?;
    list.iter().map(|value| value.as_f64().map(|v| v as f32)).collect()
}

/// What the user says is right: a label, a class index, or numbers.
pub(crate) fn answer(value: &JsValue) -> Result<Answer, Problem> {
    if let Some(label) = value.as_string() {
        return Ok(Answer::Label(label));
    }
    if let Some(index) = value.as_f64() {
        return match index.fract() == 0.0 && (0.0..1e9).contains(&index) {
            true => Ok(Answer::Class(index as usize)),
            false => Err(invalid(format!("{index} is no class index"))),
        };
    }
    floats(value)
        .map(Answer::Values)
        .ok_or_else(|| invalid("the target is no label, class index or list of numbers".to_owned()))
}

/// `RunOptions` of `types.d.ts`. A limit that is left out is that of `open`.
pub(crate) fn run_options(value: &JsValue, opened: CostLimit) -> Result<RunOptions, Problem> {
    let choice = match property(value, "patches").filter(|v| !v.is_null()) {
        None => Choice::Auto,
        Some(patches) => match (patches.as_string().as_deref(), patches.dyn_ref::<Array>()) {
            (Some("auto"), _) => Choice::Auto,
            (Some("none"), _) => Choice::None,
            (None, Some(list)) => Choice::Named(names(list)?),
            _ => {
                return Err(invalid(
                    "`patches` is neither \"auto\", \"none\" nor a list of names".to_owned(),
                ));
            }
        },
    };
    let weights = match property(value, "weights").and_then(|w| w.as_string()).as_deref() {
        None | Some("best") => WeightChoice::Best,
        Some("shared") => WeightChoice::Shared,
        Some("personal") => WeightChoice::Personal,
        Some(other) => {
            return Err(invalid(format!("`weights` is \"{other}\""))
                .with_hint("use best, shared or personal"));
        }
    };
    let compare = property(value, "compare").is_some_and(|v| v.is_truthy());
    let deadline_ms = number(value, "deadline_ms")?;
    Ok(RunOptions { choice, compare, limit: Some(limit(value, opened)?), deadline_ms, weights })
}

/// `cost_limit_ms`, `cost_limit_bytes` and `gain_per_ms`; `null` lifts a limit.
pub(crate) fn limit(value: &JsValue, otherwise: CostLimit) -> Result<CostLimit, Problem> {
    let given = |name: &str| property(value, name).is_some();
    let ms = match given("cost_limit_ms") {
        true => number(value, "cost_limit_ms")?,
        false => otherwise.ms,
    };
    let bytes = match given("cost_limit_bytes") {
        true => number(value, "cost_limit_bytes")?.map(|v| v.max(0.0) as u64),
        false => otherwise.bytes,
    };
    let gain_per_ms = match given("gain_per_ms") {
        true => number(value, "gain_per_ms")?,
        false => otherwise.gain_per_ms,
    };
    Ok(CostLimit { ms, bytes, gain_per_ms })
}

/// `TrainOptions` of `types.d.ts`.
pub(crate) fn train_options(value: &JsValue) -> Result<TrainOptions, Problem> {
    let patches = property(value, "patches").filter(|v| !v.is_null());
    let patches = match patches {
        None => None,
        Some(list) => match list.dyn_ref::<Array>() {
            Some(list) => Some(names(list)?),
            None => return Err(invalid("`patches` is no list of names".to_owned())),
        },
    };
    Ok(TrainOptions {
        epochs: number(value, "epochs")?.map(|v| v.max(1.0) as usize),
        patches,
        seed: number(value, "seed")?.map_or(0, |v| v.max(0.0) as u64),
    })
}

fn names(list: &Array) -> Result<Vec<Name>, Problem> {
    let name = |value: JsValue| {
        let text =
            value.as_string().ok_or_else(|| invalid("a patch's name is no string".to_owned()))?;
        Name::new(text.as_str()).map_err(|_| {
            Problem::new(
                Code::PatchUnknown,
                format!("no patch is called `{}`", text.escape_debug()),
            )
        })
    };
    list.iter().map(name).collect()
}

fn invalid(detail: String) -> Problem {
    Problem::new(Code::InputInvalid, detail)
}
