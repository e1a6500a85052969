//! `backstitch edge`: this machine as a device of a library: it learns from examples of its own and contributes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use backstitch_client::report::{ContributeResult, Preview, Reason};
use backstitch_edge::{Node, NodeOptions};
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use clap::Args;
use futures::executor::block_on;

use super::{asked_to_stop, examples, print_json};
use crate::failure::{Failure, Result};

/// Join a library with this machine's own examples, train, and contribute to its rounds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  backstitch edge http://localhost:8080/v1/libraries/fashion --data my-pictures
  backstitch edge http://localhost:8080/v1/libraries/fashion --consent --contributions 1

--data names
  a folder with a subfolder of .png and .jpg files for each label,
  a folder with x.npy (inputs, one after another) and y.npy (class numbers),
  or a .csv file with the columns text and label.
Examples stay in --folder and are taught once. Without --consent nothing is sent: the command shows what would be.")]
pub(super) struct Edge {
    /// Where the library is: https://host/v1/libraries/name.
    #[arg(value_name = "URL")]
    library: String,
    /// Examples to teach a device that has none yet.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Where this device keeps its examples, its secret and its privacy ledger.
    #[arg(long, value_name = "DIR", default_value = "backstitch-edge")]
    folder: PathBuf,
    /// Hex of the operator's root key, to pin it.
    #[arg(long, value_name = "HEX")]
    public_key: Option<String>,
    /// Agree that clipped updates leave this machine.
    #[arg(long)]
    consent: bool,
    /// End after so many contributions; go on until it is stopped where it is left out.
    #[arg(long, value_name = "N")]
    contributions: Option<usize>,
    /// Seconds between two looks for a new round.
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    every: u64,
    /// Print as JSON, one line for each contribution.
    #[arg(long)]
    json: bool,
}

impl Edge {
    pub(super) async fn run(self) -> Result<()> {
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        // A node blocks while it works.
        let mut work = tokio::task::spawn_blocking(move || self.work(&until));
        tokio::select! {
            done = &mut work => return done.while_doing("running the device")?,
            () = asked_to_stop() => ended.store(true, Ordering::Relaxed),
        }
        work.await.while_doing("running the device")?
    }

    fn work(&self, ended: &AtomicBool) -> Result<()> {
        let node = self.open()?;
        self.teach(&node)?;
        if !self.consent {
            return self.show(&block_on(node.client().preview())?);
        }
        node.consent()?;
        let (mut given, mut said) = (0, None);
        while !ended.load(Ordering::Relaxed) && self.contributions.is_none_or(|most| given < most) {
            match node.contribute() {
                Ok(result) => {
                    given += usize::from(result.contributed);
                    if !self.tell(&node, &result, &mut said)? {
                        return Ok(());
                    }
                }
                // Sending again later is safe: the same bytes count once.
                Err(problem) if passes(&problem) => eprintln!("{problem}; trying again"),
                Err(problem) => return Err(problem),
            }
            if self.contributions.is_none_or(|most| given < most) {
                self.wait(ended);
            }
        }
        Ok(())
    }

    fn open(&self) -> Result<Node> {
        let wrong = || {
            Problem::new(
                Code::RequestInvalid,
                format!("`{}` is no address of a library", self.library),
            )
            .with_hint("it looks like http://localhost:8080/v1/libraries/fashion")
        };
        let address = self.library.trim_end_matches('/');
        let (server, library) = address.split_once("/v1/libraries/").ok_or_else(wrong)?;
        Node::open(&NodeOptions {
            server_url: server.to_owned(),
            library: library.to_owned(),
            folder: Some(self.folder.clone()),
            public_key: self.public_key.clone(),
            ..NodeOptions::default()
        })
    }

    /// A device is taught once; its folder keeps the examples.
    fn teach(&self, node: &Node) -> Result<()> {
        let known = block_on(node.client().examples())?.total;
        match (&self.data, known) {
            (Some(data), 0) => {
                let labels = node.client().live().library.catalog.primary.labels.clone();
                let labelled = examples::read(data, &labels)?;
                node.teach(&labelled)?;
                self.say(&format!("taught {} examples of {}", labelled.len(), data.display()));
            }
            (Some(_), known) => {
                self.say(&format!("this device keeps {known} examples; --data is left aside"));
            }
            (None, 0) => {
                return Err(Problem::new(
                    Code::NothingToContribute,
                    format!("the device in {} has no examples", self.folder.display()),
                )
                .with_hint("name some with --data"));
            }
            (None, known) => self.say(&format!("this device keeps {known} examples")),
        }
        Ok(())
    }

    fn show(&self, preview: &Preview) -> Result<()> {
        if self.json {
            return print_json(preview);
        }
        println!(
            "would send {} bytes for round {} of {}: {} numbers of norm {:.3}, bound {}; ε of this period would be {:.2}",
            preview.frame_bytes,
            preview.round,
            preview.task,
            preview.parameters,
            preview.norm,
            preview.clip_norm,
            preview.epsilon_after
        );
        println!(
            "on this device's own examples the loss is {:.3} before and {:.3} after",
            preview.shared.loss, preview.trained.loss
        );
        match preview.refusal.as_ref().filter(|r| r.code != Code::ConsentMissing.as_str()) {
            Some(refusal) => {
                println!("nothing was sent, and nothing could be now: {}", words(refusal))
            }
            None => println!("nothing was sent; --consent agrees to contribute"),
        }
        Ok(())
    }

    /// Prints what came of it, a reason not to contribute once; whether there is a point in going on.
    fn tell(
        &self,
        node: &Node,
        result: &ContributeResult,
        said: &mut Option<String>,
    ) -> Result<bool> {
        let Some(reason) = &result.reason else {
            match self.json {
                true => print_json(result)?,
                false => println!(
                    "contributed {} bytes to round {} of {}",
                    result.bytes, result.round, result.task
                ),
            }
            return Ok(true);
        };
        let privacy = block_on(node.client().privacy())?;
        let account = privacy.tasks.iter().find(|task| task.name == result.task);
        let spent =
            account.is_some_and(|task| task.participations >= task.max_participations as usize);
        if spent || reason.code == Code::BudgetExhausted.as_str() {
            self.say(&reason.message);
            return Ok(false);
        }
        // A device that has taken part in the open round waits for the next one, as it should.
        let waits = reason.code == Code::ParticipationLimit.as_str();
        if !waits && said.as_ref() != Some(&reason.code) {
            let every = self.every;
            eprintln!("nothing was sent: {}; looking again every {every} s", words(reason));
            *said = Some(reason.code.clone());
        }
        Ok(true)
    }

    fn say(&self, what: &str) {
        match self.json {
            true => eprintln!("{what}"),
            false => println!("{what}"),
        }
    }

    /// Sleeps in short naps, so that the end is quick.
    fn wait(&self, ended: &AtomicBool) {
        let until = Instant::now() + Duration::from_secs(self.every);
        while Instant::now() < until && !ended.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn words(reason: &Reason) -> String {
    let hint = reason.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{}: {}{hint}", reason.code, reason.message)
}

/// Whether a problem is likely to be over soon.
fn passes(problem: &Problem) -> bool {
    [
        Code::NetworkFailed,
        Code::Unavailable,
        Code::RateLimited,
        Code::RoundClosed,
        Code::VersionStale,
    ]
    .iter()
    .any(|code| problem.is(*code))
}
