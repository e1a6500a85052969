//! Two planes on two ports: one for everybody, one for operators.

mod admin;
mod events;
pub(crate) mod listen;
mod multiplexed;
mod pages;
mod problem;
mod public;
mod range;
mod rate;
mod state;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod upload;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::sync::watch;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::Config;
use crate::failure::{Failure, Result, not_found};
use crate::round::Rounds;
use crate::services::Services;
use problem::Rejection;

/// The process has one recorder, however many servers it runs.
pub(crate) fn metrics_handle() -> Result<PrometheusHandle> {
    static HANDLE: OnceLock<std::result::Result<PrometheusHandle, String>> = OnceLock::new();
    HANDLE
        .get_or_init(|| PrometheusBuilder::new().install_recorder().map_err(|e| e.to_string()))
        .clone()
        .while_doing("installing the metrics recorder")
}

/// What handlers see.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) services: Services,
    pub(crate) rounds: Arc<Rounds>,
    pub(crate) token_digest: [u8; 32],
    pub(crate) started_at: u64,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) metrics: PrometheusHandle,
    /// In a demo, the console's address with its token.
    pub(crate) console_url: Option<String>,
}

/// The plane for everybody.
pub(crate) fn public(app: &App, config: &Config) -> Router {
    let (api, _) = public_api().split_for_parts();
    let document = document().to_json().unwrap_or_default();
    let router = api
        .route(
            "/openapi.json",
            get(|| async move { ([(header::CONTENT_TYPE, "application/json")], document) }),
        )
        .route("/", get(pages::index))
        .route("/console", get(pages::to_console))
        .route("/assets/{*path}", get(pages::asset));
    let router = finish(router, app, config.request_timeout())
        .layer(from_fn_with_state(rate::Rates::of(&config.public), rate::limited))
        // Outside of every route: it answers preflights, and lets pages read every refusal.
        .layer(cors(&config.public.cors_origins));
    let router = guarded(router);
    match config.public.tls.is_off() {
        true => router,
        // Two years: whoever came by TLS once comes by TLS again.
        false => router.layer(SetResponseHeaderLayer::if_not_present(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=63072000"),
        )),
    }
}

/// The plane for operators.
pub(crate) fn admin(app: &App, config: &Config) -> Router {
    let (api, _) = admin_api().split_for_parts();
    let (health, _) = health_api().split_for_parts();
    let router = api
        .route_layer(from_fn_with_state(app.clone(), admin::authorised))
        .merge(health)
        .route("/", get(|| async { axum::response::Redirect::to("/console") }))
        .route("/console", get(pages::console))
        .route("/assets/{*path}", get(pages::asset));
    guarded(finish(router, app, config.request_timeout()))
}

/// The OpenAPI 3.1 document of both planes.
pub fn document() -> OpenApi {
    let mut document = public_api().merge(health_api()).merge(admin_api()).into_openapi();
    document.info.title = "Backstitch".into();
    document.info.version = env!("CARGO_PKG_VERSION").into();
    document.info.description = Some(
        "/v1 is for everybody; /admin/v1 and the health paths are on the operators' port.".into(),
    );
    document
}

fn public_api() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(public::libraries))
        .routes(routes!(public::catalog))
        .routes(routes!(public::blob))
        .routes(routes!(public::draw_token))
        .routes(routes!(public::contribute))
        .routes(routes!(public::report))
        .routes(routes!(events::catalogs))
}

fn admin_api() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(admin::state))
        .routes(routes!(events::state))
        .routes(routes!(admin::promote))
        .routes(routes!(admin::rollback))
        .routes(routes!(admin::start_experiment))
        .routes(routes!(admin::stop_experiment))
}

fn health_api() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(admin::livez))
        .routes(routes!(admin::readyz))
        .routes(routes!(admin::metrics))
}

/// What both planes have: a typed answer to everything, and a time limit.
fn finish(router: Router<App>, app: &App, timeout: Duration) -> Router {
    router
        .fallback(|| async { Rejection(not_found("such path").with_hint("see /openapi.json")) })
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(from_fn(move |request, next| in_time(timeout, request, next)))
        .with_state(app.clone())
}

/// Headers that browsers obey, on every answer of a plane whoever gives it: page, worker, problem, redirect, preflight.
/// What brings no policy of its own may load, run, send and be framed nowhere.
fn guarded(router: Router) -> Router {
    let plain = |name: HeaderName, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    router
        .layer(plain(header::CONTENT_SECURITY_POLICY, pages::NOTHING))
        .layer(plain(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(plain(header::REFERRER_POLICY, "no-referrer"))
        .layer(plain(header::X_FRAME_OPTIONS, "DENY"))
        .layer(plain(HeaderName::from_static("cross-origin-opener-policy"), "same-origin"))
}

/// Answers late requests; an event stream has answered as soon as it begins.
async fn in_time(timeout: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Rejection(
            Problem::new(
                Code::Unavailable,
                format!("the request took longer than {} s", timeout.as_secs()),
            )
            .with_hint("send the same bytes again; they count once"),
        )
        .into_response(),
    }
}

/// Exactly the configured origins; no credentials, so a page can do no more than anybody.
fn cors(origins: &[String]) -> CorsLayer {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|o| o.parse().ok()).collect();
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_NONE_MATCH,
            header::RANGE,
        ])
        .expose_headers([header::ETAG, header::CONTENT_RANGE, header::RETRY_AFTER])
        .max_age(Duration::from_secs(3600))
}
