//! The two pages and their assets, embedded in the program. Debug builds read them from `web/dist`.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
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

/// Codings of packed files with the ends of their names, the best first: Zstandard is unpacked twice as fast as Brotli.
const CODINGS: [(&str, &str); 2] = [("zstd", "zst"), ("br", "br")];

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
pub(crate) async fn asset(
    Path(path): Path<String>,
    asked: HeaderMap,
) -> Result<Response, Rejection> {
    let path = format!("assets/{path}");
    let caching = "public, max-age=31536000, immutable";
    let packed = |(coding, ending): (&'static str, &str)| {
        takes(&asked, coding).then(|| packed(&path, coding, ending, caching))?
    };
    let mut response = CODINGS
        .into_iter()
        .find_map(packed)
        .or_else(|| file(&path, caching))
        .map(with_policy)
        .ok_or_else(|| Rejection(not_found("such asset")))?;
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    Ok(response)
}

/// Whether a client names a coding among what it takes (RFC 9110, section 12.5.3), and not with a weight of zero.
fn takes(asked: &HeaderMap, wanted: &str) -> bool {
    let lines = asked.get_all(header::ACCEPT_ENCODING).iter();
    lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(";q=").unwrap_or((coding, "1"));
        name.trim().eq_ignore_ascii_case(wanted)
            && weight.trim().parse::<f32>().is_ok_and(|weight| weight > 0.0)
    })
}

/// The file as `web/compress.mjs` has packed it, under the type of what is in it.
fn packed(
    path: &str,
    coding: &'static str,
    ending: &str,
    caching: &'static str,
) -> Option<Response> {
    let bytes = Dist::get(&format!("{path}.{ending}"))?.data.into_owned();
    let mut response = file(path, caching)?;
    *response.body_mut() = bytes.into();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    Some(response)
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
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert("permissions-policy", HeaderValue::from_static(PERMISSIONS));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_is_for_those_who_take_it() {
        let takes = |line: &'static str, coding| {
            let line = (header::ACCEPT_ENCODING, HeaderValue::from_static(line));
            takes(&HeaderMap::from_iter([line]), coding)
        };
        assert!(takes("gzip, deflate, br, zstd", "br") && takes("gzip, deflate, br, zstd", "zstd"));
        assert!(takes("BR", "br") && takes("gzip;q=1, br;q=0.5", "br"));
        assert!(!takes("gzip, deflate", "br") && !takes("br;q=0", "br") && !takes("br", "zstd"));
        assert!(!takes("", "br") && !takes("brotli", "br"));
        assert!(!super::takes(&HeaderMap::new(), "br"));
    }
}
