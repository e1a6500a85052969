//! Calls to the operator plane of a running server.

use backstitch_protocol::Problem;
use backstitch_protocol::problem::{Code, ProblemBody};
use clap::Args;
use serde_json::Value;

use super::ConfigArgs;
use crate::failure::{Failure, Result};

/// Which running server is meant.
#[derive(Debug, Clone, Args)]
pub(super) struct AdminArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The operator plane; by default where the configuration puts it.
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
}

impl AdminArgs {
    /// The state that the console shows.
    pub(super) fn state(&self) -> Result<Value> {
        self.call("/admin/v1/state", None)
    }

    /// An action.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(path, Some(body))
    }

    fn call(&self, path: &str, body: Option<&Value>) -> Result<Value> {
        let config = self.config.load()?;
        let server =
            self.admin.clone().unwrap_or_else(|| format!("http://{}", config.admin.listen));
        let token = std::fs::read_to_string(config.token_path())
            .when_reading(format!("the token in {}", config.token_path().display()))?;
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let url = format!("{}{path}", server.trim_end_matches('/'));
        let bearer = format!("Bearer {}", token.trim());
        let answer = match body {
            None => agent.get(&url).header("authorization", &bearer).call(),
            Some(body) => agent
                .post(&url)
                .header("authorization", &bearer)
                .header("content-type", "application/json")
                .send(body.to_string()),
        };
        let mut answer = answer.map_err(|cause| {
            Problem::new(Code::NetworkFailed, format!("{server}: {cause}"))
                .with_hint("is the server running, and is --admin right?")
        })?;
        let text = answer.body_mut().read_to_string().when_reading("the server's answer")?;
        if answer.status().is_success() {
            return serde_json::from_str(&text).when_reading("the server's answer");
        }
        let body: ProblemBody = serde_json::from_str(&text).when_reading("the server's answer")?;
        Err(Problem::from_body(&body))
    }
}
