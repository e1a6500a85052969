//! Problems as HTTP answers: `application/problem+json` (RFC 9457), with a stable code.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use backstitch_protocol::Problem;
use backstitch_protocol::problem::{Code, ProblemBody};

/// A problem on its way out.
#[derive(Debug)]
pub(crate) struct Rejection(pub(crate) Problem);

impl From<Problem> for Rejection {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let mut body = self.0.body();
        if self.0.status() >= 500 && self.0.is(Code::Internal) {
            tracing::error!(problem = %self.0, "request failed");
            // The cause may name files and statements; it stands in the log.
            body.detail = "the cause stands in the server's log".into();
        }
        let mut response = answer(&body);
        if [429, 503].contains(&body.status) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

/// The answer to a method that a path does not have.
pub(crate) async fn method_not_allowed() -> Response {
    let problem = Problem::new(Code::RequestInvalid, "this path does not take this method");
    answer(&ProblemBody { status: StatusCode::METHOD_NOT_ALLOWED.as_u16(), ..problem.body() })
}

fn answer(body: &ProblemBody) -> Response {
    let status = StatusCode::from_u16(body.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = serde_json::to_string(body).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/problem+json")], text).into_response()
}

/// The same for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[schema(as = Problem)]
#[allow(dead_code, reason = "describes ProblemBody of the protocol crate, which knows no OpenAPI")]
pub(crate) struct ProblemDocument {
    /// A stable URI per code.
    r#type: String,
    /// A short sentence.
    title: String,
    /// The HTTP status.
    status: u16,
    /// A stable code.
    code: String,
    /// What was wrong in this case.
    detail: String,
    /// What to do.
    hint: Option<String>,
}
