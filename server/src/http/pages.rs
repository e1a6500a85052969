//! The two pages and their assets, embedded in the program. Debug builds read them from `web/dist`.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use rust_embed::RustEmbed;

use super::App;
use super::problem::Rejection;
use crate::failure::not_found;

#[derive(RustEmbed)]
#[folder = "../web/dist"]
#[allow_missing = true]
struct Dist;

/// Pages run their own scripts and nothing else; nothing may frame them.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; img-src 'self' data: blob:; style-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The camera is for the page itself, which asks its user; nothing else of the device is for anybody.
const PERMISSIONS: &str =
    "camera=(self), microphone=(), geolocation=(), display-capture=(), usb=()";

/// The policy of whatever is no page and no script of one.
pub(super) const NOTHING: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Where the pages have not been built.
const MISSING: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Backstitch</title><p>The server runs, but its pages are not built. Run <code>just web</code> and reload.";

/// The end user's page.
pub(crate) async fn index() -> Response {
    page("index.html")
}

/// The operators' page.
pub(crate) async fn console() -> Response {
    page("console/index.html")
}

/// In a demo, the way to the console with its token; a fragment never reaches a server or a log.
pub(crate) async fn to_console(State(app): State<App>) -> Result<Redirect, Rejection> {
    match &app.console_url {
        Some(url) => Ok(Redirect::to(url)),
        None => Err(Rejection(
            not_found("console on this port")
                .with_hint("it stands at /console on the operators' port"),
        )),
    }
}

/// Scripts, styles and wasm, named by their content. A worker obeys the policy of its own file, not its page's.
pub(crate) async fn asset(Path(path): Path<String>) -> Result<Response, Rejection> {
    file(&format!("assets/{path}"), "public, max-age=31536000, immutable")
        .map(with_policy)
        .ok_or_else(|| Rejection(not_found("such asset")))
}

fn page(path: &str) -> Response {
    let found = file(path, "no-cache");
    with_policy(found.unwrap_or_else(|| {
        let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
        (StatusCode::SERVICE_UNAVAILABLE, kind, MISSING).into_response()
    }))
}

fn with_policy(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, header::HeaderValue::from_static(POLICY));
    headers.insert("permissions-policy", header::HeaderValue::from_static(PERMISSIONS));
    response
}

fn file(path: &str, caching: &'static str) -> Option<Response> {
    let file = Dist::get(path)?;
    let mut kind = file.metadata.mimetype().to_owned();
    if kind.starts_with("text/") {
        kind.push_str("; charset=utf-8");
    }
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, caching.to_owned())];
    Some((headers, file.data.into_owned()).into_response())
}
