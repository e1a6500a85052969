//! Bodies: their length must be stated and is checked before anything is read into memory.

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, header};
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, Result};

/// Bytes of a JSON body.
const JSON_BYTES: usize = 16 << 10;

/// The stated length of a plain body of this media type.
pub(crate) fn stated_length(headers: &HeaderMap, media_type: &str) -> Result<usize> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Problem::new(Code::LengthRequired, "uploads take no Content-Encoding")
            .with_hint("send the bytes as they are"));
    }
    let stated = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    if stated.split(';').next().map(str::trim) != Some(media_type) {
        return Err(Problem::new(
            Code::RequestInvalid,
            format!("Content-Type must be {media_type}"),
        ));
    }
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse().ok())
        .ok_or_else(|| Problem::new(Code::LengthRequired, "the upload has no Content-Length"))
}

/// Reads exactly that many bytes.
pub(crate) async fn exactly(body: Body, length: usize) -> Result<Bytes> {
    let bytes = to_bytes(body, length).await.when_reading("the upload broke off")?;
    match bytes.len() == length {
        true => Ok(bytes),
        false => Err(Problem::new(
            Code::RequestInvalid,
            format!("the upload broke off after {} of {length} bytes", bytes.len()),
        )
        .with_hint("send the same bytes again; they count once")),
    }
}

/// Reads a small JSON body.
pub(crate) async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T> {
    let length = stated_length(headers, "application/json")?;
    if length > JSON_BYTES {
        return Err(Problem::new(
            Code::BodyTooLarge,
            format!("{length} bytes are more than {JSON_BYTES}"),
        ));
    }
    serde_json::from_slice(&exactly(body, length).await?).when_reading("the body")
}
