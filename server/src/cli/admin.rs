//! Calls to the operator plane of a running server.

use std::net::SocketAddr;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, StatusCode, header};
use backstitch_protocol::Problem;
use backstitch_protocol::problem::{Code, ProblemBody};
use clap::Args;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::ConfigArgs;
use crate::failure::{Failure, Result};

/// Bytes of the largest answer.
const LONGEST_ANSWER: usize = 64 << 20;

/// Which running server is meant.
#[derive(Debug, Clone, Args)]
pub(super) struct AdminArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Address and port of the operator plane; by default where the configuration puts it.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

impl AdminArgs {
    /// The state that the console shows.
    pub(super) async fn state(&self) -> Result<Value> {
        self.call("GET", "/admin/v1/state", String::new()).await
    }

    /// An action.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call("POST", path, body.to_string()).await
    }

    async fn call(&self, method: &str, path: &str, body: String) -> Result<Value> {
        let config = self.config.load()?;
        let server = self.admin.unwrap_or(config.admin.listen);
        let token = std::fs::read_to_string(config.token_path())
            .when_reading(format!("the token in {}", config.token_path().display()))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, server.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .when_reading("the request")?;
        let (status, text) = send(server, request).await.map_err(|cause| {
            Problem::new(Code::NetworkFailed, format!("{server}: {cause}"))
                .with_hint("is the server running, and is --admin right?")
        })?;
        if status.is_success() {
            return serde_json::from_slice(&text).when_reading("the server's answer");
        }
        let body: ProblemBody =
            serde_json::from_slice(&text).when_reading("the server's answer")?;
        Err(Problem::from_body(&body))
    }
}

/// One request on a connection of its own. The operator plane speaks plain HTTP on an internal address.
pub(super) async fn send(
    server: SocketAddr,
    request: Request<Body>,
) -> std::result::Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream = tokio::net::TcpStream::connect(server).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let text = to_bytes(Body::new(answer.into_body()), LONGEST_ANSWER).await?;
    connection.abort();
    Ok((status, text))
}
