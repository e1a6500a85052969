//! `backstitch serve`: the server, until it is asked to stop.

use clap::Args;

use super::{ConfigArgs, asked_to_stop, start_log};
use crate::failure::Result;
use crate::server::Server;

/// Run the server.
#[derive(Debug, Args)]
#[command(after_help = "Example: backstitch serve --config backstitch.toml")]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigArgs,
}

impl Serve {
    pub(super) async fn run(self) -> Result<()> {
        let config = self.config.load()?;
        start_log(&config.log);
        let token = config.token_path();
        let running = Server::start(config).await?;
        eprintln!("page      {}/", running.public_url());
        eprintln!("console   {}/console", running.admin_url());
        eprintln!("token     in {}", token.display());
        asked_to_stop().await;
        tracing::info!("stopping");
        running.shutdown().await;
        Ok(())
    }
}
