//! The plane for everybody: catalogs, blobs, contributions, reports, events.

use std::net::IpAddr;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::contribution::{Contribution, MAX_PARAMETERS, MEDIA_TYPE};
use backstitch_protocol::experiment::Report;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use backstitch_protocol::token::{Token, TokenAnswer, TokenRequest};
use serde::Serialize;

use super::App;
use super::problem::{ProblemDocument, Rejection};
use super::range::requested;
use super::upload;
use crate::admission::Network;
use crate::experiment::{self, Reported};
use crate::failure::Result;
use crate::round::Accepted;
use crate::task::TaskId;

/// One library in the list.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct LibraryLine {
    name: String,
    title: String,
    description: String,
    modality: String,
}

/// The libraries of this server.
#[utoipa::path(get, path = "/v1/libraries", responses((status = 200, body = Vec<LibraryLine>)))]
pub(crate) async fn libraries(State(app): State<App>) -> Json<Vec<LibraryLine>> {
    let line = |issued: std::sync::Arc<crate::registry::Issued>| LibraryLine {
        name: issued.catalog.library.to_string(),
        title: issued.catalog.title.clone(),
        description: issued.catalog.description.clone(),
        modality: issued.catalog.modality.clone(),
    };
    Json(app.services.catalogs.all().into_iter().map(line).collect())
}

/// The signed catalog of a library. Its ETag is the catalog's version.
#[utoipa::path(get, path = "/v1/libraries/{library}/catalog", params(("library" = String, Path, description = "The library's name")), responses(
    (status = 200, description = "SignedCatalog: {payload, certificate: {payload, root, signature}, signature}", content_type = "application/json"),
    (status = 304, description = "The version in If-None-Match is the newest"),
    (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(crate) async fn catalog(
    State(app): State<App>,
    Path(library): Path<String>,
    headers: HeaderMap,
) -> std::result::Result<Response, Rejection> {
    let issued = app.services.catalogs.newest(&Name::new(library)?)?;
    let etag = format!("\"{}\"", issued.catalog.version);
    let caching = [(header::ETAG, etag.clone()), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if known(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, caching).into_response());
    }
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((caching, kind, issued.body.clone()).into_response())
}

/// Immutable bytes, whole or one range of them.
#[utoipa::path(get, path = "/v1/blobs/{digest}", params(("digest" = String, Path, description = "64 hex digits of the SHA-256")), responses(
    (status = 200, description = "The bytes", content_type = "application/octet-stream"),
    (status = 206, description = "The range that was asked for", content_type = "application/octet-stream"),
    (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
    (status = 416, description = "The range is not within the bytes"),
))]
pub(crate) async fn blob(
    State(app): State<App>,
    Path(hex): Path<String>,
    headers: HeaderMap,
) -> std::result::Result<Response, Rejection> {
    let digest: Digest = hex
        .parse()
        .map_err(|_| Problem::new(Code::RequestInvalid, "a blob's address is 64 hex digits"))?;
    let etag = format!("\"{}\"", digest.hex());
    let fixed = [
        (header::ETAG, etag.clone()),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
    ];
    if known(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, fixed).into_response());
    }
    let length = app.services.blobs.len(&digest).await?;
    match requested(&headers, length) {
        None => Ok((fixed, app.services.blobs.get(&digest).await?).into_response()),
        Some(Ok(range)) => {
            let place = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            let bytes: Bytes = app.services.blobs.range(&digest, range).await?;
            Ok((StatusCode::PARTIAL_CONTENT, fixed, [(header::CONTENT_RANGE, place)], bytes)
                .into_response())
        }
        Some(Err(())) => {
            let place = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
            Ok((StatusCode::RANGE_NOT_SATISFIABLE, place).into_response())
        }
    }
}

/// Takes one device's clipped update. It is on the disk when this answers, and it counts once.
#[utoipa::path(post, path = "/v1/tasks/{task}/contributions", params(("task" = String, Path, description = "<library>.<task>"), ("Authorization" = Option<String>, Header, description = "Bearer and the token, 64 hex digits, where the catalog states a token_key for the task")),
    request_body(content_type = "application/vnd.backstitch.contribution", description = "The frame; Content-Length is required, Content-Encoding is refused"),
    responses(
        (status = 200, body = Accepted),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json", description = "frame_length, frame_invalid, norm_exceeded"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json", description = "token_invalid"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "version_stale, nullifier_reused, round_closed, budget_exhausted"),
        (status = 411, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn contribute(
    State(app): State<App>,
    Path(task): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> std::result::Result<Json<Accepted>, Rejection> {
    let task: TaskId = task.parse()?;
    let answer = take(&app, &task, &headers, body).await;
    if let Err(problem) = &answer {
        app.rounds.count_rejected(&task, problem.code());
        // The code alone: nothing that could be tied to a device.
        tracing::debug!(%task, code = problem.code(), "contribution refused");
    }
    Ok(Json(answer?))
}

async fn take(app: &App, task: &TaskId, headers: &HeaderMap, body: Body) -> Result<Accepted> {
    let expected = Contribution::encoded_len(app.rounds.frame_values(task)?);
    let length = upload::stated_length(headers, MEDIA_TYPE)?;
    if length > Contribution::encoded_len(MAX_PARAMETERS) {
        return Err(Problem::new(
            Code::BodyTooLarge,
            format!("{length} bytes; this task takes {expected}"),
        ));
    }
    if length != expected {
        return Err(Problem::new(
            Code::FrameLength,
            format!("a contribution to {task} has {expected} bytes, not {length}"),
        )
        .with_hint("read the catalog again and train from its current version"));
    }
    let frame = upload::exactly(body, length).await?;
    app.rounds.contribute(task, &frame, token(headers)?.as_ref()).await
}

/// The token of `Authorization: Bearer <64 hex digits>`.
fn token(headers: &HeaderMap) -> Result<Option<Token>> {
    let Some(given) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let text = given.to_str().ok().and_then(|given| given.strip_prefix("Bearer "));
    text.and_then(|text| Token::try_from(text.to_owned()).ok()).map(Some).ok_or_else(|| {
        Problem::new(Code::TokenInvalid, "Authorization is not `Bearer` and 64 hex digits")
    })
}

/// Evaluates a profile's blinded element for the open round of a task: one token per profile and release.
#[utoipa::path(post, path = "/v1/tokens",
    request_body(content_type = "application/json", description = "{task: <library>.<task>, round, profile, blinded: 64 hex digits each, voucher?}"),
    responses(
        (status = 200, description = "{evaluated: 64 hex digits, proof: 128 hex digits} (RFC 9497, POPRF, ristretto255-SHA512)", content_type = "application/json"),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json", description = "enrolment_refused"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "token_spent, participation_limit, round_closed, budget_exhausted"),
    ))]
pub(crate) async fn draw_token(
    State(app): State<App>,
    network: Option<Extension<Network>>,
    headers: HeaderMap,
    body: Body,
) -> std::result::Result<Json<TokenAnswer>, Rejection> {
    let request: TokenRequest = upload::json(&headers, body).await?;
    let network = network.map_or(Network::from(IpAddr::from([0; 4])), |Extension(n)| n);
    Ok(Json(app.services.admission.issue(&request, network).await?))
}

/// Takes one device's randomised outcome; it counts once.
#[utoipa::path(post, path = "/v1/experiments/{experiment}/reports", params(("experiment" = String, Path, description = "<library>.<experiment>")),
    request_body(content_type = "application/json", description = "{arm, outcome, nullifier: 64 hex digits}"),
    responses(
        (status = 200, body = Reported),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "nullifier_reused, round_closed"),
    ))]
pub(crate) async fn report(
    State(app): State<App>,
    Path(experiment): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> std::result::Result<Json<Reported>, Rejection> {
    let id: TaskId = experiment.parse()?;
    let report: Report = upload::json(&headers, body).await?;
    let reported = experiment::report(&app.services.store, &id, &report).await?;
    app.services.changed();
    Ok(Json(reported))
}

/// Whether the client has this version already.
pub(super) fn known(headers: &HeaderMap, etag: &str) -> bool {
    let stated =
        headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v: &HeaderValue| v.to_str().ok());
    stated.flat_map(|v| v.split(',')).any(|v| v.trim().trim_start_matches("W/") == etag)
}
