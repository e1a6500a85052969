//! What an interface shows of a library, its graph and this device's privacy.

use std::collections::BTreeMap;

use backstitch_onnx::patch::Mode;
use backstitch_protocol::Problem;
use backstitch_protocol::catalog::TaskEntry;
use backstitch_protocol::contribution::Contribution;
use backstitch_protocol::id::Name;
use backstitch_protocol::privacy::{ReportBudget, RhoQuanta, certainty};

use super::adapt::arms;
use super::contribute::consent_missing;
use super::{Adapted, Client, Slot};
use crate::ledger::{Entry, Kind, Ledger};
use crate::library::Library;
use crate::port::Port;
use crate::report::*;
use crate::selection::described_features;

/// The id of a patch's node: one node per attachment.
pub(super) fn patch_node(name: &Name, attachment: usize) -> String {
    match attachment {
        0 => format!("patch:{name}"),
        n => format!("patch:{name}:{n}"),
    }
}

impl<P: Port> Client<P> {
    /// The library, as it runs on this device.
    pub fn describe(&self) -> LibraryInfo {
        let live = self.live();
        let Library { catalog, session, broken, .. } = &*live.library;
        let tensor = |(name, shape): (&str, &[usize])| TensorInfo {
            name: name.to_owned(),
            shape: shape.to_vec(),
        };
        let cost = session.cost();
        LibraryInfo {
            name: catalog.library.clone(),
            title: catalog.title.clone(),
            description: catalog.description.clone(),
            modality: catalog.modality.clone(),
            labels: catalog.primary.labels.clone(),
            input: tensor(session.input()),
            output: tensor(session.output()),
            preprocessing: catalog.primary.preprocessing.clone(),
            catalog_version: catalog.version,
            primary: PrimaryInfo {
                digest: session.digest().to_string(),
                bytes: catalog.primary.model.bytes,
                macs: cost.macs,
                parameter_bytes: cost.parameter_bytes,
            },
            patches: live.slots.iter().map(|slot| patch_info(&live, slot)).collect(),
            broken: broken
                .iter()
                .map(|b| BrokenInfo {
                    name: b.name.clone(),
                    version: b.number,
                    problem: (&b.problem).into(),
                })
                .collect(),
            tasks: catalog.tasks.iter().map(|task| task.name.clone()).collect(),
            features: described_features(catalog),
            key: self
                .source
                .try_lock()
                .and_then(|s| s.key().map(str::to_owned))
                .unwrap_or_default(),
        }
    }

    /// The primary as it is cut, with every patch that could be stitched. Run results say which nodes ran.
    pub fn graph(&self) -> Graph {
        let live = self.live();
        let mut graph = Picture::default();
        graph.primary(&live);
        for slot in &live.slots {
            graph.patch(slot);
        }
        graph.finish(&live)
    }

    /// This device's privacy account.
    pub async fn privacy(&self) -> Result<Privacy, Problem> {
        self.check_open()?;
        let live = self.live();
        let catalog = &live.library.catalog;
        let device = self.device.lock().await;
        let ledger = match device.as_ref() {
            Ok(device) => device.ledger(&self.port).await,
            Err(problem) => Err(problem.clone()),
        };
        let consent = match device.as_ref() {
            Ok(device) => device.consent(&self.port).await,
            Err(_) => false,
        };
        let now = self.port.unix_seconds();
        let tasks =
            catalog.tasks.iter().map(|task| task_privacy(task, &ledger, consent, now)).collect();
        let windows = self.windows.lock().await;
        let mut experiments = Vec::new();
        if let Ok(device) = device.as_ref() {
            for (experiment, arm) in arms(&live.library, device.secret())? {
                let window = windows.get(&experiment.name).filter(|w| w.seed == experiment.seed);
                experiments.push(ExperimentPrivacy {
                    name: experiment.name.clone(),
                    arm: arm.name.clone(),
                    window: experiment.window,
                    seen: window.map_or(0, |w| w.seen),
                    reported: window.is_some_and(|w| w.sent),
                    epsilon: experiment.epsilon.value(),
                });
            }
        }
        Ok(Privacy {
            consent,
            tasks,
            experiments,
            reports: reports_privacy(&catalog.reports, &ledger, now),
            ever: ledger.as_ref().ok().map(|ledger| ever_privacy(&catalog.tasks, ledger)),
            ledger: ledger_state(&ledger),
            history: ledger.as_ref().map(history).unwrap_or_default(),
            sent: sent(catalog.tasks.first()),
            never_sent: [
                "Your inputs",
                "Your examples and labels",
                "Your answers",
                "Anything that names you or this device",
            ]
            .map(str::to_owned)
            .to_vec(),
        })
    }

    /// Records whether the user agrees to contribute.
    pub async fn consent(&self, agreed: bool) -> Result<Privacy, Problem> {
        self.check_open()?;
        let device = self.device.lock().await;
        match device.as_ref() {
            Ok(device) => device.set_consent(&self.port, agreed).await?,
            Err(problem) => return Err(problem.clone()),
        }
        drop(device);
        self.privacy().await
    }
}

fn patch_info(live: &Adapted, slot: &Slot) -> PatchInfo {
    let version = &slot.shared;
    let manifest = version.patch.manifest();
    let entries = live.library.catalog.patches.iter().filter(|e| e.name == version.name);
    PatchInfo {
        name: version.name.clone(),
        function: manifest.function.clone(),
        version: version.number,
        versions: entries
            .map(|e| VersionInfo { version: e.version, aliases: e.aliases.clone() })
            .collect(),
        trainable: !manifest.trainable.is_empty(),
        parameters: version.patch.weights().values().map(|t| t.len()).sum(),
        macs: version.compiled.macs,
        bytes: version.weight_bytes,
        sites: version.sites.clone(),
        modes: manifest.attachments.iter().map(|a| a.mode).collect(),
        requires: version.selector.requires.clone(),
        performance: manifest.performance.clone(),
        licence: manifest.licence.clone().unwrap_or_default(),
        personal: slot
            .personal
            .as_ref()
            .map(|t| PersonalInfo { in_use: t.in_use, examples: t.examples }),
    }
}

fn task_privacy(
    task: &TaskEntry,
    ledger: &Result<Ledger, Problem>,
    consent: bool,
    now: u64,
) -> TaskPrivacy {
    let empty = Ledger::default();
    let known = ledger.as_ref().unwrap_or(&empty);
    let spent = known.spent(task, now);
    let next = spent.checked_add(task.cost()).unwrap_or(RhoQuanta(u64::MAX));
    let blocked = match ledger {
        Err(problem) => Err(problem.clone()),
        Ok(_) if !consent => Err(consent_missing()),
        Ok(ledger) => ledger.permit(task, now),
    };
    TaskPrivacy {
        name: task.name.clone(),
        patches: task.patches.clone(),
        round: task.round,
        goal: task.goal,
        open: task.open,
        closed_reason: task.closed_reason.clone(),
        participations: known.recent(task, now).len(),
        max_participations: task.max_participations,
        period_days: task.period_days,
        min_separation: task.min_separation,
        last_round: known.participations(&task.name).map(|e| e.round).max(),
        spent_rho: spent.rho(),
        spent_epsilon: spent.epsilon(task.delta),
        next_epsilon: next.epsilon(task.delta),
        epsilon: task.epsilon.value(),
        delta: task.delta.value(),
        certainty: certainty(spent.epsilon(task.delta)),
        certainty_limit: certainty(task.epsilon.value()),
        clip_norm: task.clip_norm.value(),
        noise_multiplier: task.noise_multiplier.value(),
        blocked: blocked.as_ref().err().map(Reason::from),
    }
}

fn reports_privacy(
    budget: &ReportBudget,
    ledger: &Result<Ledger, Problem>,
    now: u64,
) -> ReportsPrivacy {
    let spent = ledger.as_ref().map_or(0.0, |ledger| ledger.reported(budget, now));
    ReportsPrivacy {
        spent_epsilon: spent,
        epsilon: budget.epsilon.value(),
        period_days: budget.period_days,
        certainty: certainty(spent),
        certainty_limit: certainty(budget.epsilon.value()),
    }
}

/// Contributions to several tasks add their ρ, and reports their ε: composition of what one unit has sent.
fn ever_privacy(tasks: &[TaskEntry], ledger: &Ledger) -> EverPrivacy {
    let (reports, contributions): (Vec<_>, Vec<_>) =
        ledger.sent().into_iter().partition(|entry| entry.kind == Kind::Report);
    let delta = tasks.iter().map(|task| task.delta).reduce(|a, b| if b < a { b } else { a });
    let sum = contributions.iter().try_fold(RhoQuanta::default(), |sum, e| sum.checked_add(e.rho));
    let rho = sum.unwrap_or(RhoQuanta(u64::MAX));
    let told = delta.map_or(0.0, |delta| rho.epsilon(delta));
    let epsilon = told + ReportBudget::spent(reports.iter().map(|entry| entry.rho));
    EverPrivacy {
        contributions: contributions.len(),
        reports: reports.len(),
        rho: rho.rho(),
        delta: delta.map_or(0.0, |delta| delta.value()),
        epsilon,
        certainty: certainty(epsilon),
    }
}

fn ledger_state(ledger: &Result<Ledger, Problem>) -> LedgerState {
    match ledger {
        Ok(ledger) => {
            let marker = ledger.marker();
            LedgerState { entries: marker.entries, head: marker.head, intact: true, problem: None }
        }
        Err(problem) => LedgerState {
            entries: 0,
            head: String::new(),
            intact: false,
            problem: Some(problem.into()),
        },
    }
}

fn history(ledger: &Ledger) -> Vec<SentEntry> {
    let entry = |entry: &Entry| SentEntry {
        kind: if entry.kind == Kind::Report { "report" } else { "contribution" },
        name: entry.task.clone(),
        round: entry.round,
        at: entry.at,
        rho: entry.rho.rho(),
    };
    ledger.sent().into_iter().map(entry).collect()
}

fn sent(task: Option<&TaskEntry>) -> Vec<String> {
    let Some(task) = task else { return Vec::new() };
    vec![
        format!(
            "{} whole numbers: how much each trained weight changed, clipped and rounded ({} bytes)",
            task.parameters,
            Contribution::encoded_len(task.parameters)
        ),
        "Which version the training started from".to_owned(),
        "A one-time code and a token, so that a contribution counts once; the token was drawn blindly, so neither says who you are".to_owned(),
    ]
}

/// Collects nodes and edges.
#[derive(Default)]
struct Picture {
    graph: Graph,
    /// What a site's value comes from so far: its segment or the input, then the last series patch on it.
    heads: BTreeMap<String, String>,
}

impl Picture {
    fn node(&mut self, id: &str, kind: &'static str, label: &str) -> &mut GraphNode {
        let node = GraphNode {
            id: id.to_owned(),
            kind,
            label: label.to_owned(),
            patch: None,
            mode: None,
            ops: None,
            macs: None,
            shape: None,
        };
        self.graph.nodes.push(node);
        let last = self.graph.nodes.len() - 1;
        &mut self.graph.nodes[last]
    }

    fn edge(&mut self, from: &str, to: &str) {
        let edge = GraphEdge { from: from.to_owned(), to: to.to_owned() };
        if !self.graph.edges.contains(&edge) {
            self.graph.edges.push(edge);
        }
    }

    fn primary(&mut self, live: &Adapted) {
        let session = &live.library.session;
        let (input, shape) = session.input();
        self.node("input", "input", input).shape = Some(shape.to_vec());
        let mut makers = BTreeMap::from([(input, "input".to_owned())]);
        for segment in session.segments() {
            makers.extend(segment.outputs.iter().map(|name| (name.as_str(), segment.name.clone())));
        }
        for site in session.sites() {
            let shape = session.shapes().get(site).map(|(_, shape)| shape.clone());
            self.node(&format!("site:{site}"), "site", site).shape = shape;
            let maker = makers.get(site.as_str()).cloned().unwrap_or_else(|| "input".to_owned());
            self.heads.insert(site.clone(), maker);
        }
        for (index, segment) in session.segments().iter().enumerate() {
            let count =
                |(op, count): (&String, &usize)| OperatorCount { op: op.clone(), count: *count };
            let node = self.node(&segment.name, "segment", &format!("segment {index}"));
            node.ops = Some(segment.operators.iter().map(count).collect());
            node.macs = Some(segment.macs);
            for read in &segment.inputs {
                let from = match session.sites().contains(read) {
                    true => format!("site:{read}"),
                    false => {
                        makers.get(read.as_str()).cloned().unwrap_or_else(|| "input".to_owned())
                    }
                };
                self.edge(&from, &segment.name);
            }
        }
    }

    fn patch(&mut self, slot: &Slot) {
        let version = &slot.shared;
        for (index, attachment) in version.patch.manifest().attachments.iter().enumerate() {
            let (id, site) = (patch_node(&version.name, index), attachment.site().to_owned());
            let macs = (index == 0).then_some(version.compiled.macs);
            let node = self.node(&id, "patch", version.name.as_str());
            node.patch = Some(version.name.clone());
            node.mode = Some(attachment.mode);
            node.macs = macs;
            for read in attachment.inputs.values() {
                let from = match (*read == site, self.heads.get(read)) {
                    (true, Some(head)) => head.clone(),
                    _ => format!("site:{read}"),
                };
                self.edge(&from, &id);
            }
            match attachment.mode {
                Mode::Series => drop(self.heads.insert(site, id)),
                Mode::Parallel | Mode::Replace => self.edge(&id, &format!("site:{site}")),
            }
        }
    }

    fn finish(mut self, live: &Adapted) -> Graph {
        let session = &live.library.session;
        let makers = session.segments().iter();
        let makers: Vec<(String, Vec<String>)> =
            makers.map(|s| (s.name.clone(), s.outputs.clone())).collect();
        let input = session.input().0;
        for (site, head) in std::mem::take(&mut self.heads) {
            let maker =
                makers.iter().find(|(_, made)| made.contains(&site)).map(|(name, _)| name.clone());
            let plain = maker.or_else(|| (site == input).then(|| "input".to_owned()));
            // The way without patches, and the way through those in series.
            plain.into_iter().for_each(|from| self.edge(&from, &format!("site:{site}")));
            self.edge(&head, &format!("site:{site}"));
        }
        let (output, shape) = session.output();
        self.node("output", "output", output).shape = Some(shape.to_vec());
        let from = match session.sites().contains(output) {
            true => format!("site:{output}"),
            false => makers
                .iter()
                .find(|(_, m)| m.iter().any(|n| n == output))
                .map_or("input".into(), |(n, _)| n.clone()),
        };
        self.edge(&from, "output");
        self.graph
    }
}
