//! One edge device: a client, its examples, and what it does on a round.

use std::sync::Arc;

use backstitch_client::Client;
use backstitch_client::client::{Answer, Options, RunOptions, WeightChoice};
use backstitch_client::report::ContributeResult;
use backstitch_client::selection::Choice;
use backstitch_client::workshop::Workshop;
use backstitch_protocol::Problem;
use futures::executor::block_on;

use crate::data::Example;
use crate::port::{NativePort, Network};

/// A device that blocks while it works. It lives on the thread that opened it.
pub struct Node {
    client: Client<NativePort>,
}

impl Node {
    /// Opens a library in memory. Nodes of one process share the network's content and whatever is compiled.
    pub fn open(
        library_url: &str,
        network: &Network,
        workshop: &Arc<Workshop>,
    ) -> Result<Self, Problem> {
        Self::with_port(library_url, NativePort::in_memory(network.clone()), workshop)
    }

    /// Opens a library through this port.
    pub fn with_port(
        library_url: &str,
        port: NativePort,
        workshop: &Arc<Workshop>,
    ) -> Result<Self, Problem> {
        let options = Options { workshop: workshop.clone(), ..Options::default() };
        let client = block_on(Client::open(port, library_url, options, &|_| {}, &|| false))?;
        Ok(Self { client })
    }

    /// The client itself.
    pub fn client(&self) -> &Client<NativePort> {
        &self.client
    }

    /// Takes examples and agrees to contribute.
    pub fn teach(&self, examples: &[Example]) -> Result<(), Problem> {
        block_on(async {
            self.client.consent(true).await?;
            for example in examples {
                self.client.learn(&example.input()?, &Answer::Class(example.class)).await?;
            }
            Ok(())
        })
    }

    /// Contributes to the open round, or says why not.
    pub fn contribute(&self) -> Result<ContributeResult, Problem> {
        block_on(self.client.contribute())
    }

    /// The share of right answers with these patches, after reading the newest catalog.
    pub fn accuracy(
        &self,
        examples: &[Example],
        choice: &Choice,
        weights: WeightChoice,
    ) -> Result<f64, Problem> {
        let options = RunOptions { choice: choice.clone(), weights, ..RunOptions::default() };
        block_on(async {
            self.client.refresh().await?;
            let mut right = 0;
            for example in examples {
                let result = self.client.run(&example.input()?, &options, &|| false).await?;
                right +=
                    usize::from(result.top.first().is_some_and(|best| best.index == example.class));
            }
            Ok(right as f64 / examples.len().max(1) as f64)
        })
    }
}
