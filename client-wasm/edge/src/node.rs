//! One device at the edge: the client with data of its own.

use std::path::PathBuf;
use std::sync::Arc;

use backstitch_client::client::{Answer, Client, Options};
use backstitch_client::examples::Target;
use backstitch_client::input::Input;
use backstitch_client::report::ContributeResult;
use backstitch_client::workshop::Workshop;
use backstitch_protocol::Problem;
use futures::executor::block_on;

use crate::port::{NativePort, Network};

/// How to open a node.
#[derive(Clone, Default)]
pub struct NodeOptions {
    /// `http://host:port`, without a path.
    pub server_url: String,
    /// The library's name.
    pub library: String,
    /// Where the device keeps its state; in memory where left out.
    pub folder: Option<PathBuf>,
    /// Hex of the operator's signing key, to pin it.
    pub public_key: Option<String>,
    /// Shared by the nodes of one process.
    pub network: Network,
    /// Shared by the nodes of one process.
    pub workshop: Arc<Workshop>,
}

/// An input with what is right for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// The input.
    pub input: Input,
    /// Its class, or the numbers that the model should answer.
    pub target: Target,
}

impl Labelled {
    /// An input of a class.
    pub fn new(input: Input, class: usize) -> Self {
        Self { input, target: Target::Class(class) }
    }

    /// Its class, where it has one.
    pub fn class(&self) -> Option<usize> {
        match self.target {
            Target::Class(class) => Some(class),
            Target::Values(_) => None,
        }
    }

    fn answer(&self) -> Answer {
        match &self.target {
            Target::Class(class) => Answer::Class(*class),
            Target::Values(values) => Answer::Values(values.clone()),
        }
    }
}

/// One device.
pub struct Node {
    client: Client<NativePort>,
}

impl Node {
    /// Opens the library on a new or known device.
    pub fn open(options: &NodeOptions) -> Result<Self, Problem> {
        let port = match &options.folder {
            Some(folder) => NativePort::in_folder(options.network.clone(), folder)?,
            None => NativePort::in_memory(options.network.clone()),
        };
        let url = format!(
            "{}/v1/libraries/{}",
            options.server_url.trim_end_matches('/'),
            options.library
        );
        let own = Options {
            public_key: options.public_key.clone(),
            workshop: options.workshop.clone(),
            ..Options::default()
        };
        let client = block_on(Client::open(port, &url, own, &|_| {}, &|| false))?;
        Ok(Self { client })
    }

    /// The client; its futures are ready at once, since a native port blocks.
    pub fn client(&self) -> &Client<NativePort> {
        &self.client
    }

    /// Keeps examples on the device.
    pub fn teach(&self, examples: &[Labelled]) -> Result<(), Problem> {
        for example in examples {
            block_on(self.client.keep(&example.input, &example.answer()))?;
        }
        Ok(())
    }

    /// Uses the model on inputs whose answer turns out later, as a user who corrects it does: running experiments
    /// learn from it.
    pub fn use_on(&self, inputs: &[Labelled]) -> Result<(), Problem> {
        for input in inputs {
            block_on(self.client.assess(&input.input, &input.answer()))?;
        }
        Ok(())
    }

    /// Agrees to contribute.
    pub fn consent(&self) -> Result<(), Problem> {
        block_on(self.client.consent(true)).map(|_| ())
    }

    /// Trains and contributes to the open round, or says why not.
    pub fn contribute(&self) -> Result<ContributeResult, Problem> {
        block_on(self.client.contribute())
    }

    /// Labelled inputs that running experiments still want from this device.
    pub fn wanted_outcomes(&self) -> Result<usize, Problem> {
        let privacy = block_on(self.client.privacy())?;
        let open = privacy.experiments.iter().map(|e| e.window.saturating_sub(e.seen) as usize);
        Ok(open.max().unwrap_or(0))
    }
}
