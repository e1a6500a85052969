//! A picture, a text, a series or numbers, under a library's description of them: prepared or refused in words. What is
//! prepared has the stated shape and no gaps, and its analysis is made of numbers.
#![no_main]

use arbitrary::Arbitrary;
use backstitch_client::analysis::analyse;
use backstitch_client::input::Input;
use backstitch_client::preprocessing::Preprocessing;
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
enum Given<'a> {
    Image(u16, u16, &'a [u8]),
    Text(&'a str),
    Tensor(Vec<u8>, Vec<f32>),
    Bytes(Vec<u8>, &'a [u8]),
}

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    description: Description<'a>,
    given: Given<'a>,
}

#[derive(Debug, Arbitrary)]
enum Description<'a> {
    Json(&'a [u8]),
    Picture { width: u8, height: u8, colour: bool, scale: f64, mean: Vec<f64>, std: Vec<f64>, nhwc: bool },
    Text { max_tokens: u8, vocabulary: &'a str },
    Series { window: u8, channels: u8, rate: f64, mean: Vec<f64>, std: Vec<f64>, missing: f64, ntc: bool },
}

/// Larger ones are right as well, and slow.
const PIXELS: usize = 1 << 14;

fuzz_target!(|case: Case<'_>| {
    let (json, vocabulary) = described(&case.description);
    let (Some(json), Some(input)) = (json, input(case.given)) else { return };
    let Ok(preprocessing) = Preprocessing::from_json(&json) else { return };
    if let Preprocessing::Picture(picture) = &preprocessing
        && picture.width * picture.height > PIXELS
    {
        return;
    }
    let _ = preprocessing.subject(&input);
    let Ok(preparation) = preprocessing.complete(vocabulary.as_bytes()) else { return };
    let Ok(prepared) = preparation.prepare(&input, &[1, 4]) else { return };
    assert_eq!(prepared.shape.iter().product::<usize>(), prepared.values.len(), "a false shape");
    let features = analyse(&prepared.subject);
    for (name, value) in &features.0 {
        assert!(value.is_finite(), "{name} is {value}");
    }
});

fn described(description: &Description<'_>) -> (Option<serde_json::Value>, String) {
    let blob = serde_json::json!({"digest": format!("sha256:{}", "0".repeat(64)), "bytes": 1});
    let json = match description {
        Description::Json(bytes) => return (serde_json::from_slice(bytes).ok(), String::new()),
        Description::Picture { width, height, colour, scale, mean, std, nhwc } => serde_json::json!({
            "width": width, "height": height, "channels": if *colour { 3 } else { 1 }, "scale": scale,
            "mean": mean, "std": std, "layout": if *nhwc { "nhwc" } else { "nchw" },
        }),
        Description::Text { max_tokens, vocabulary } => {
            let vocabulary = format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n{vocabulary}");
            return (
                Some(serde_json::json!({"max_tokens": max_tokens, "vocabulary": blob})),
                vocabulary,
            );
        }
        Description::Series { window, channels, rate, mean, std, missing, ntc } => serde_json::json!({
            "window": window, "channels": channels, "rate_hz": rate, "mean": mean, "std": std,
            "max_missing": missing, "layout": if *ntc { "ntc" } else { "nct" },
        }),
    };
    (Some(json), String::new())
}

fn input(given: Given<'_>) -> Option<Input> {
    let shape = |dims: Vec<u8>| dims.into_iter().map(usize::from).collect::<Vec<_>>();
    match given {
        Given::Image(width, height, bytes) => {
            let needed = 4 * usize::from(width) * usize::from(height);
            if needed > 4 * PIXELS || bytes.is_empty() {
                return None;
            }
            let rgba = bytes.iter().copied().cycle().take(needed).collect();
            Input::image(u32::from(width), u32::from(height), rgba).ok()
        }
        Given::Text(text) => Input::text(text.to_owned()).ok(),
        Given::Tensor(dims, values) => Input::tensor(shape(dims), values).ok(),
        Given::Bytes(dims, values) => Input::bytes(shape(dims), values.to_vec()).ok(),
    }
}
