//! The plane for operators: state, promotion, rollback, experiments, health, metrics.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::App;
use super::problem::{ProblemDocument, Rejection};
use super::state::{self, ConsoleState};
use super::upload;
use crate::experiment::{self, Proposal};
use crate::failure::Result;
use crate::registry::alias;

type Answer<T> = std::result::Result<Json<T>, Rejection>;

/// Done.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Done {
    /// Always true.
    done: bool,
}

const DONE: Json<Done> = Json(Done { done: true });

/// A version that is to become the champion.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Promote {
    /// The version.
    version: u32,
    /// The champion that it is to follow; another one is a conflict.
    #[serde(default)]
    expected: Option<u32>,
    /// For the history.
    reason: String,
}

/// Why something is done.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Because {
    /// For the history.
    reason: String,
}

/// Lets a request through if it has the operators' token.
pub(crate) async fn authorised(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> std::result::Result<Response, Rejection> {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let token = given.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or("");
    // Equal digests of secrets are compared, so the time tells nothing about the token.
    if Sha256::digest(token.as_bytes()).as_slice() != app.token_digest {
        return Err(Rejection(
            Problem::new(Code::Unauthorized, "the bearer token is missing or wrong")
                .with_hint("the token stands in admin.token in the server's data folder"),
        ));
    }
    Ok(next.run(request).await)
}

/// Everything that the console shows.
#[utoipa::path(get, path = "/admin/v1/state", responses((status = 200, description = "See the console", content_type = "application/json"), (status = 401, body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn state(State(app): State<App>) -> Answer<ConsoleState> {
    Ok(Json(state::read(&app).await?))
}

/// Makes a version the champion.
#[utoipa::path(post, path = "/admin/v1/libraries/{library}/patches/{patch}/promote", params(("library" = String, Path), ("patch" = String, Path)), request_body = Promote, responses((status = 200, body = Done), (status = 404, body = ProblemDocument, content_type = "application/problem+json"), (status = 409, body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn promote(
    State(app): State<App>,
    Path((library, patch)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Done> {
    let wish: Promote = upload::json(&headers, body).await?;
    let (library, patch) = (Name::new(library)?, Name::new(patch)?);
    let evidence = ("operator", given(&wish.reason)?);
    app.rounds.promote(&library, &patch, wish.version, wish.expected, evidence).await?;
    Ok(DONE)
}

/// Goes back to the champion before this one.
#[utoipa::path(post, path = "/admin/v1/libraries/{library}/patches/{patch}/rollback", params(("library" = String, Path), ("patch" = String, Path)), request_body = Because, responses((status = 200, body = Done), (status = 404, body = ProblemDocument, content_type = "application/problem+json"), (status = 409, body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn rollback(
    State(app): State<App>,
    Path((library, patch)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Done> {
    let wish: Because = upload::json(&headers, body).await?;
    let (library, patch) = (Name::new(library)?, Name::new(patch)?);
    let reason = format!("rollback: {}", given(&wish.reason)?);
    let mut reading = app.services.store.read().await?;
    let target = alias::rollback_target(&mut reading, &library, &patch).await?;
    let champion = alias::find(&mut reading, &library, &patch, alias::CHAMPION).await?;
    drop(reading);
    // From the champion that was seen: a rollback that races a release is refused and can be repeated.
    app.rounds.promote(&library, &patch, target, champion, ("operator", &reason)).await?;
    Ok(DONE)
}

/// Starts an experiment.
#[utoipa::path(post, path = "/admin/v1/libraries/{library}/experiments", params(("library" = String, Path)), request_body = Proposal, responses((status = 200, body = Done), (status = 400, body = ProblemDocument, content_type = "application/problem+json"), (status = 409, body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn start_experiment(
    State(app): State<App>,
    Path(library): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Done> {
    let proposal: Proposal = upload::json(&headers, body).await?;
    let library = Name::new(library)?;
    experiment::start(&app.services.store, &library, &proposal, app.services.clock.now()).await?;
    app.services.note_debit().await?;
    tracing::info!(%library, experiment = %proposal.name, "experiment started");
    app.services.catalogs.issue(&library).await?;
    app.services.changed();
    Ok(DONE)
}

/// Stops an experiment.
#[utoipa::path(post, path = "/admin/v1/libraries/{library}/experiments/{experiment}/stop", params(("library" = String, Path), ("experiment" = String, Path)), request_body = Because, responses((status = 200, body = Done), (status = 404, body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn stop_experiment(
    State(app): State<App>,
    Path((library, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Done> {
    let wish: Because = upload::json(&headers, body).await?;
    let (library, name) = (Name::new(library)?, Name::new(name)?);
    let reason = given(&wish.reason)?;
    experiment::stop(&app.services.store, &library, &name, reason, app.services.clock.now())
        .await?;
    tracing::info!(%library, experiment = %name, "experiment stopped");
    app.services.catalogs.issue(&library).await?;
    app.services.changed();
    Ok(DONE)
}

/// The process runs.
#[utoipa::path(get, path = "/livez", responses((status = 200, description = "ok")))]
pub(crate) async fn livez() -> &'static str {
    "ok"
}

/// The server can do its work: the store answers, every library has a catalog, and it is not stopping.
#[utoipa::path(get, path = "/readyz", responses((status = 200, description = "ok"), (status = 503, description = "what is missing")))]
pub(crate) async fn readyz(State(app): State<App>) -> (StatusCode, String) {
    match ready(&app).await {
        Ok(()) => (StatusCode::OK, "ok".into()),
        Err(problem) => (StatusCode::SERVICE_UNAVAILABLE, problem.detail().to_owned()),
    }
}

async fn ready(app: &App) -> Result<()> {
    let unavailable = |what: String| Problem::new(Code::Unavailable, what);
    if *app.stopping.borrow() {
        return Err(unavailable("the server is stopping".into()));
    }
    let mut reading = app.services.store.read().await?;
    for library in crate::registry::libraries(&mut reading).await? {
        let issued = app.services.catalogs.newest(&library)?;
        if app.services.clock.now() >= issued.catalog.expires_at {
            return Err(unavailable(format!("the catalog of {library} has expired")));
        }
    }
    Ok(())
}

/// Prometheus text.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "Prometheus text", content_type = "text/plain")))]
pub(crate) async fn metrics(State(app): State<App>) -> String {
    app.metrics.render()
}

/// A reason that says something.
fn given(reason: &str) -> Result<&str> {
    let reason = reason.trim();
    match (1..=500).contains(&reason.len()) && !reason.contains(char::is_control) {
        true => Ok(reason),
        false => Err(Problem::new(
            Code::RequestInvalid,
            "a reason of 1 to 500 characters in one line is needed",
        )),
    }
}
