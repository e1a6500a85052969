//! The client against a scripted server, on the real sample library.

mod background;
mod memory;
mod pages;
mod ready;
mod stream;
mod unlabelled;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::OnceLock;

use backstitch_onnx::Digest;
use backstitch_onnx::patch::Patch;
use backstitch_protocol::Problem;
use backstitch_protocol::catalog::{
    ArmEntry, Blob, Catalog, ExperimentEntry, LedgerHead, PatchEntry, PrimaryEntry, ProbeEntry,
    TaskEntry,
};
use backstitch_protocol::contribution::Contribution;
use backstitch_protocol::experiment::Report;
use backstitch_protocol::id::Name;
use backstitch_protocol::privacy::{ClipNorm, Delta, Epsilon, NoiseMultiplier};
use backstitch_protocol::problem::Code;
use backstitch_protocol::token::{Issuer, Token, TokenRequest, TokenScope};
use futures::FutureExt as _;
use futures::executor::block_on;

use super::*;
use crate::input::Input;
use crate::memory::MemoryPort;
use crate::port::{Method, Request, Response};
use crate::random::SplitMix;
use crate::report::InUse;
use crate::selection::{Choice, ReasonCode};
use crate::session::Plan;
use crate::test_library::{Fashion, Library};

const URL: &str = "https://host/v1/libraries/fashion";

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn files() -> &'static Library {
    static FILES: OnceLock<Library> = OnceLock::new();
    FILES.get_or_init(Fashion::load)
}

/// One workshop for all tests: compiling is what takes long.
fn workshop() -> Arc<Workshop> {
    static SHARED: OnceLock<Arc<Workshop>> = OnceLock::new();
    SHARED.get_or_init(Arc::default).clone()
}

/// A server in memory, whose state tests change.
struct Server {
    catalog: Catalog,
    blobs: BTreeMap<String, Vec<u8>>,
    contributions: Vec<(Vec<u8>, Contribution)>,
    reports: Vec<Report>,
    draws: Vec<TokenRequest>,
    /// Answers the next draws in place of evaluating them.
    token_fails: Option<Problem>,
    /// Answers the next contributions in place of accepting them.
    contribution_fails: Option<Problem>,
    /// Takes contributions and then loses the answer.
    answers_lost: bool,
    offline: bool,
}

impl Server {
    fn blob(&mut self, bytes: &[u8]) -> Blob {
        let digest = Digest::of(bytes);
        self.blobs.insert(digest.hex(), bytes.to_vec());
        Blob { digest, bytes: bytes.len() as u64 }
    }

    fn new() -> Rc<RefCell<Self>> {
        let none = Blob { digest: Digest::of(b""), bytes: 0 };
        let primary = PrimaryEntry {
            model: none,
            input: "image".to_owned(),
            output: "logits".to_owned(),
            labels: (0..10).map(|i| format!("label {i}")).collect(),
            preprocessing: serde_json::json!({"width": 28, "height": 28, "channels": 1}),
            probes: vec![],
        };
        let catalog = Catalog {
            format: 1,
            library: name("fashion"),
            title: "Clothes".to_owned(),
            description: String::new(),
            modality: "image".to_owned(),
            version: 1,
            issued_at: 0,
            expires_at: 1_900_000_000,
            primary,
            patches: vec![],
            tasks: vec![],
            experiments: vec![],
            reports: Default::default(),
            ledger: LedgerHead::default(),
            samples: None,
        };
        let mut server = Self {
            catalog,
            blobs: BTreeMap::new(),
            contributions: vec![],
            reports: vec![],
            draws: vec![],
            token_fails: None,
            contribution_fails: None,
            answers_lost: false,
            offline: false,
        };
        server.catalog.primary.model = server.blob(&files().bytes);
        let chooser = std::fs::read(Fashion::folder().join("probes/gains.onnx")).unwrap();
        let features = ["noise-reduction", "sharpening", "low-contrast", "rotation"];
        let gains = ProbeEntry {
            name: name("gains"),
            site: "image".to_owned(),
            model: server.blob(&chooser),
            features: features.map(|patch| format!("probe.{patch}")).into(),
            described: BTreeMap::new(),
        };
        server.catalog.primary.probes.push(gains);
        for (patch, (manifest, graph)) in files().patches.iter().zip(&files().parts) {
            let entry = PatchEntry {
                name: name(&patch.manifest().name),
                version: 1,
                aliases: vec!["champion".to_owned()],
                manifest: server.blob(manifest),
                graph: server.blob(graph),
                weights: None,
            };
            server.catalog.patches.push(entry);
        }
        server.catalog.tasks.push(task(1, &[(1, &files().patches[2])]));
        Rc::new(RefCell::new(server))
    }

    /// Publishes a version of personal-style with these weights and opens the next round.
    fn publish(&mut self, version: u32, value: f32) {
        let patch = filled(&files().patches[2], value);
        let weights = self.blob(&patch.weights_bytes());
        let old =
            self.catalog.patches.iter_mut().find(|p| p.name.as_str() == "personal-style").unwrap();
        (old.version, old.weights) = (version, Some(weights));
        let round = self.catalog.tasks[0].round + 1;
        self.catalog.tasks[0] = task(round, &[(version, &patch)]);
        self.catalog.version += 1;
    }

    fn scope(&self) -> TokenScope<'_> {
        let task = &self.catalog.tasks[0];
        TokenScope { library: &self.catalog.library, task: &task.name, round: task.round }
    }

    fn answer(&mut self, request: &Request) -> Result<Response, Problem> {
        if self.offline {
            return Err(Problem::new(Code::NetworkFailed, "offline"));
        }
        let path = request.url.strip_prefix("https://host/v1/").unwrap();
        let ok = |body: Vec<u8>| Ok(Response { status: 200, body, ..Response::default() });
        match (request.method, path.split('/').collect::<Vec<_>>().as_slice()) {
            (Method::Get, ["libraries", "fashion", "catalog"]) => {
                let etag = format!("\"{}\"", self.catalog.version);
                if request.headers.contains(&("if-none-match", etag.clone())) {
                    return Ok(Response { status: 304, ..Response::default() });
                }
                let signed = crate::test_library::signed(&self.catalog, 5);
                let body = serde_json::to_vec(&signed).unwrap();
                Ok(Response { status: 200, headers: [("etag".to_owned(), etag)].into(), body })
            }
            (Method::Get, ["blobs", digest]) => ok(self.blobs[*digest].clone()),
            (Method::Post, ["tasks", "fashion.personal-style", "contributions"]) => {
                if let Some(problem) = &self.contribution_fails {
                    let body = serde_json::to_vec(&problem.body()).unwrap();
                    return Ok(Response { status: problem.status(), body, ..Response::default() });
                }
                let bytes = request.body.clone().unwrap();
                let task = &self.catalog.tasks[0];
                let contribution = Contribution::decode(&bytes, task.parameters).unwrap();
                assert_eq!(contribution.base(), task.base);
                let bearer = request.headers.iter().find(|(name, _)| *name == "authorization");
                let token = bearer.and_then(|(_, value)| value.strip_prefix("Bearer ")).unwrap();
                let token = Token::try_from(token.to_owned()).unwrap();
                let scope = self.scope();
                assert!(issuer().accepts(&contribution.nullifier(), &scope, &token));
                let duplicate = self.contributions.iter().any(|(known, _)| *known == bytes);
                let reused = |c: &Contribution| c.nullifier() == contribution.nullifier();
                assert!(
                    duplicate || !self.contributions.iter().any(|(_, c)| reused(c)),
                    "a nullifier came twice"
                );
                if !duplicate {
                    self.contributions.push((bytes, contribution));
                }
                if self.answers_lost {
                    return Err(Problem::new(Code::NetworkFailed, "the connection broke"));
                }
                ok(format!(
                    "{{\"accepted\":true,\"round\":{},\"duplicate\":{duplicate}}}",
                    task.round
                )
                .into())
            }
            (Method::Post, ["tokens"]) => {
                let request: TokenRequest =
                    serde_json::from_slice(request.body.as_ref().unwrap()).unwrap();
                self.draws.push(request.clone());
                if let Some(problem) = &self.token_fails {
                    let body = serde_json::to_vec(&problem.body()).unwrap();
                    return Ok(Response { status: problem.status(), body, ..Response::default() });
                }
                let scope = TokenScope { round: request.round, ..self.scope() };
                let answer = issuer().evaluate(&request.blinded, &scope, [9; 32]).unwrap();
                ok(serde_json::to_vec(&answer).unwrap())
            }
            (Method::Post, ["experiments", name, "reports"]) if name.starts_with("fashion.e") => {
                self.reports.push(serde_json::from_slice(request.body.as_ref().unwrap()).unwrap());
                ok(b"{}".to_vec())
            }
            other => panic!("{other:?}"),
        }
    }
}

fn task(round: u64, patches: &[(u32, &Patch)]) -> TaskEntry {
    TaskEntry {
        name: name("personal-style"),
        patches: patches.iter().map(|(_, p)| name(&p.manifest().name)).collect(),
        base_versions: patches.iter().map(|(version, _)| *version).collect(),
        base: backstitch_protocol::catalog::base(
            round,
            patches.iter().map(|(_, p)| p.weights_digest()),
        ),
        parameters: patches
            .iter()
            .flat_map(|(_, p)| p.weights().into_values())
            .map(|t| t.len() as u32)
            .sum(),
        round,
        goal: 64,
        clip_norm: ClipNorm::new(0.5).unwrap(),
        noise_multiplier: NoiseMultiplier::new(2.54).unwrap(),
        max_participations: 4,
        period_days: 30,
        min_separation: 1,
        noise_band: 1,
        measures: vec![],
        epsilon: Epsilon::new(4.0).unwrap(),
        delta: Delta::new(1e-6).unwrap(),
        period_spent: Default::default(),
        token_key: Some(issuer().public_key()),
        open: true,
        closed_reason: None,
    }
}

fn issuer() -> Issuer {
    Issuer::from_seed(&[3; 32]).unwrap()
}

fn filled(patch: &Patch, value: f32) -> Patch {
    let tensors = patch.weights().into_iter().map(|(name, tensor)| {
        let values = vec![value; tensor.len()];
        (name, backstitch_onnx::Tensor::new(tensor.shape().to_vec(), &values).unwrap())
    });
    patch.with_weights(tensors.collect()).unwrap()
}

fn device(server: &Rc<RefCell<Server>>, seed: u64) -> MemoryPort {
    let server = server.clone();
    MemoryPort::new(seed, move |request| server.borrow_mut().answer(request))
}

fn open(port: &MemoryPort) -> Client<MemoryPort> {
    let options = Options { workshop: workshop(), ..Options::default() };
    block_on(Client::open(port.clone(), URL, options, &|_| {}, &|| false)).unwrap()
}

fn picture(seed: u64, noise: f32) -> Input {
    let mut draws = SplitMix::new(seed);
    let values = (0..784).map(|i| {
        let inside = (7..21).contains(&(i % 28)) && (5..23).contains(&(i / 28));
        let level = if inside { 0.8 } else { 0.0 };
        (level + noise * (draws.uniform() as f32 - 0.5)).clamp(0.0, 1.0)
    });
    Input::tensor(vec![28, 28], values.collect()).unwrap()
}

fn run(client: &Client<MemoryPort>, input: &Input, choice: Choice) -> crate::report::RunResult {
    let options = RunOptions { choice, compare: true, ..RunOptions::default() };
    block_on(client.run(input, &options, &|| false)).unwrap()
}

/// Teaches `n` pictures that the model names wrongly: all are of one class.
fn teach(client: &Client<MemoryPort>, n: u64) {
    for seed in 0..n {
        block_on(client.learn(&picture(seed, 0.2), &Answer::Class(7))).unwrap();
    }
}

fn train(client: &Client<MemoryPort>) -> crate::report::TrainReport {
    block_on(client.train(&TrainOptions::default(), &|_| {}, &|| false)).unwrap()
}

#[test]
fn an_input_is_analysed_stitched_and_explained() {
    let client = open(&device(&Server::new(), 1));
    let result = run(&client, &picture(1, 0.9), Choice::Auto);
    let code = |name: &str| {
        result.candidates.iter().find(|c| c.name.as_str() == name).unwrap().reason_code
    };
    assert_eq!(code("noise-reduction"), ReasonCode::Chosen);
    assert_eq!(code("personal-style"), ReasonCode::NotTrained);
    assert!(result.features.value("image.noise").unwrap() > 0.1);
    assert_eq!(result.top.len(), 5);
    assert!((result.top.iter().map(|t| t.score).sum::<f64>()) <= 1.0 + 1e-9);
    assert_ne!(result.version, result.base_version);
    assert_ne!(Some(&result.output), result.base_output.as_ref());
    let clean = run(&client, &picture(1, 0.0), Choice::None);
    assert_eq!((clean.version, Some(clean.output)), (clean.base_version, clean.base_output));
    let ids: Vec<String> = client.graph().nodes.into_iter().map(|node| node.id).collect();
    assert!(
        result.graph.active.iter().all(|id| ids.contains(id)),
        "{:?} {ids:?}",
        result.graph.active
    );
    assert!(result.graph.active.contains(&"patch:noise-reduction".to_owned()));
}

/// A probe at the pooled features, or at another tensor: their mean.
fn probe(server: &Rc<RefCell<Server>>, site: &str, features: &[&str]) {
    use backstitch_onnx::{DType, Graph, Model, Node, ValueInfo};
    let open = |name: &str| ValueInfo { name: name.to_owned(), dtype: DType::F32, shape: None };
    let graph = Graph {
        nodes: vec![Node::new("ReduceMean", &["x"], &["y"])],
        inputs: vec![open("x")],
        outputs: vec![open("y")],
        ..Graph::default()
    };
    let mut server = server.borrow_mut();
    let model = server.blob(&Model { opset: 13, graph }.to_bytes());
    server.catalog.primary.probes.push(ProbeEntry {
        name: name("level"),
        site: site.to_owned(),
        model,
        features: features.iter().map(|feature| (*feature).to_owned()).collect(),
        described: BTreeMap::new(),
    });
}

#[test]
fn a_probe_adds_features_of_the_unpatched_primary_and_changes_no_answer() {
    let server = Server::new();
    let plain = open(&device(&server, 1));
    probe(&server, "logits", &["probe.level"]);
    let probed = open(&device(&server, 1));
    for (noise, choice) in [(0.0, Choice::Auto), (0.9, Choice::Auto), (0.9, Choice::None)] {
        let input = picture(1, noise);
        let (without, with) = (run(&plain, &input, choice.clone()), run(&probed, &input, choice));
        assert_eq!((&with.output, &with.patches), (&without.output, &without.patches));
        let base = with.base_output.unwrap();
        let mean = base.iter().map(|v| f64::from(*v)).sum::<f64>() / base.len() as f64;
        assert!((with.features.value("probe.level").unwrap() - mean).abs() < 1e-5);
        assert!(with.cost.stages.iter().any(|stage| stage.name == "probe"));
        assert_eq!(without.features.value("probe.level"), None);
    }
}

#[test]
fn what_ran_for_a_probe_is_not_run_again_for_the_answer() {
    let server = Server::new();
    probe(&server, "logits", &["probe.level"]);
    let client = open(&device(&server, 1));
    let mut pending = client.begin(&picture(1, 0.0)).unwrap();
    let live = client.live();
    let mut features = client.analyse(&picture(1, 0.0)).unwrap();
    let (session, probes) = (&live.library.session, &live.library.probes);
    let started = pending.started.take();
    let read = probes.read(session, &pending.input, started, &mut features, &|| 0.0).unwrap();
    let ran = session
        .run(&Plan::of(session, &[]).unwrap(), &[], &pending.input, Some(&read), &|| 0.0)
        .unwrap();
    assert_eq!(ran.reused.len(), session.segments().len());
}

#[test]
fn a_probe_that_does_not_fit_is_an_invalid_catalog() {
    for (site, features) in [("nowhere", vec!["probe.a"]), ("logits", vec!["probe.a", "probe.b"])] {
        let server = Server::new();
        probe(&server, site, &features);
        let options = Options { workshop: workshop(), ..Options::default() };
        let opened = block_on(Client::open(device(&server, 1), URL, options, &|_| {}, &|| false));
        let problem = opened.err().unwrap();
        assert!(problem.to_string().contains(site), "{problem}");
    }
}

#[test]
fn two_steps_answer_as_one() {
    let client = open(&device(&Server::new(), 1));
    let input = picture(2, 0.9);
    let whole = run(&client, &input, Choice::Auto);
    let features = client.analyse(&input).unwrap();
    let pending = client.begin(&input).unwrap();
    let result =
        block_on(client.finish(pending, Some(features), &RunOptions::default(), &|| false))
            .unwrap();
    assert_eq!((&result.output, &result.version), (&whole.output, &whole.version));
    assert!(result.cost.overlapped && !whole.cost.overlapped);
}

#[test]
fn the_cost_limit_is_kept_with_a_reason() {
    let client = open(&device(&Server::new(), 1));
    let limit = Some(CostLimit { ms: Some(0.0), ..CostLimit::default() });
    let options = RunOptions { limit, ..RunOptions::default() };
    let result = block_on(client.run(&picture(1, 0.9), &options, &|| false)).unwrap();
    assert!(result.patches.is_empty());
    assert!(result.candidates.iter().any(|c| c.reason_code == ReasonCode::OverLimit));
    assert_eq!(result.cost.limit_ms, Some(0.0));
}

#[test]
fn bad_input_unknown_patches_cancelling_and_closing_are_typed() {
    let client = open(&device(&Server::new(), 1));
    let code = |result: Result<_, Problem>| {
        result.map(|_: crate::report::RunResult| ()).unwrap_err().code()
    };
    let options = |choice| RunOptions { choice, ..RunOptions::default() };
    let wrong = Input::tensor(vec![3], vec![0.0; 3]).unwrap();
    assert_eq!(
        code(block_on(client.run(&wrong, &RunOptions::default(), &|| false))),
        "input_invalid"
    );
    let unknown = options(Choice::Named(vec![name("moustache")]));
    assert_eq!(code(block_on(client.run(&picture(1, 0.0), &unknown, &|| false))), "patch_unknown");
    assert_eq!(
        code(block_on(client.run(&picture(1, 0.0), &RunOptions::default(), &|| true))),
        "aborted"
    );
    let taught = block_on(client.learn(&picture(1, 0.0), &Answer::Label("hat".to_owned())));
    assert!(taught.unwrap_err().is(Code::InputInvalid));
    client.close();
    assert_eq!(
        code(block_on(client.run(&picture(1, 0.0), &RunOptions::default(), &|| false))),
        "closed"
    );
}

#[test]
fn training_makes_a_personal_version_that_runs_use() {
    let port = device(&Server::new(), 1);
    let client = open(&port);
    assert!(
        block_on(client.train(&TrainOptions::default(), &|_| {}, &|| false))
            .unwrap_err()
            .is(Code::NothingToContribute)
    );
    teach(&client, 12);
    let report = train(&client);
    assert!(report.improved && report.in_use == InUse::Personal, "{report:?}");
    assert_eq!((report.examples.training, report.examples.held_out), (10, 2));
    assert_eq!(report.curve.len(), 10);
    let result = run(&client, &picture(50, 0.2), Choice::Auto);
    assert!(result.patches.iter().any(|p| p.personal), "{:?}", result.candidates);
    assert_eq!(result.top[0].index, 7);
    // It survives a restart, and the shared weights are still to be had.
    let again = open(&port);
    assert_eq!(run(&again, &picture(50, 0.2), Choice::Auto).output, result.output);
    let shared = RunOptions { weights: WeightChoice::Shared, ..RunOptions::default() };
    let result = block_on(again.run(&picture(50, 0.2), &shared, &|| false)).unwrap();
    assert!(!result.patches.iter().any(|p| p.personal));
    block_on(again.forget()).unwrap();
    assert_eq!(block_on(again.examples()).unwrap().total, 0);
    assert!(!run(&again, &picture(50, 0.2), Choice::Auto).patches.iter().any(|p| p.personal));
}

#[test]
fn a_new_version_is_picked_up_and_personal_weights_go_on_top() {
    let server = Server::new();
    let client = open(&device(&server, 1));
    teach(&client, 12);
    train(&client);
    let before = client.live();
    assert!(!block_on(client.refresh()).unwrap().changed);
    server.borrow_mut().publish(2, 0.01);
    let refreshed = block_on(client.refresh()).unwrap();
    assert!(refreshed.changed);
    assert_eq!((refreshed.patches[0].from, refreshed.patches[0].to), (1, 2));
    let style = name("personal-style");
    let weights = |adapted: &Adapted| {
        let trained = adapted.slot(&style).unwrap().personal.clone().unwrap().version;
        trained.patch.weights()["bridge.bias"].values::<f32>().unwrap()
    };
    let live = client.live();
    for (old, new) in weights(&before).iter().zip(weights(&live)) {
        assert!((new - old - 0.01).abs() < 1e-6);
    }
    // What compiles was taken over.
    let compiled = |adapted: &Adapted| adapted.slot(&style).unwrap().shared.compiled.clone();
    assert!(Arc::ptr_eq(&compiled(&before), &compiled(&live)));
    assert!(Arc::ptr_eq(&before.library.session, &live.library.session));
}

#[test]
fn nothing_is_sent_before_consent_enough_examples_and_an_improvement() {
    let server = Server::new();
    let client = open(&device(&server, 1));
    let reason = || block_on(client.contribute()).unwrap().reason.unwrap().code;
    assert_eq!(reason(), "consent_missing");
    block_on(client.consent(true)).unwrap();
    assert_eq!(reason(), "nothing_to_contribute");
    // The held-out ones say what the client says anyway, the rest contradicts them.
    for seed in 0..10u64 {
        let known = run(&client, &picture(seed, 0.2), Choice::None).top[0].index;
        let class = if seed % 5 == 4 { known } else { 7 };
        block_on(client.learn(&picture(seed, 0.2), &Answer::Class(class))).unwrap();
    }
    assert_eq!(reason(), "not_improved");
    server.borrow_mut().catalog.tasks[0].open = false;
    server.borrow_mut().catalog.version += 1;
    assert_eq!(reason(), "round_closed");
    let server = server.borrow();
    assert!(server.contributions.is_empty());
}

#[test]
fn what_is_previewed_is_what_is_sent_once() {
    let server = Server::new();
    let port = device(&server, 1);
    let client = open(&port);
    teach(&client, 12);
    let preview = block_on(client.preview()).unwrap();
    assert_eq!(preview.refusal.as_ref().unwrap().code, "consent_missing");
    assert!(server.borrow().contributions.is_empty());
    assert!(block_on(client.consent(true)).unwrap().consent);
    let sent = block_on(client.contribute()).unwrap();
    assert!(sent.contributed && sent.bytes == preview.frame.len());
    assert_eq!(server.borrow().contributions[0].0, preview.frame);
    assert_eq!(preview.frame.len(), 72 + 2 * preview.parameters);
    let again = block_on(client.contribute()).unwrap();
    assert_eq!(again.reason.unwrap().code, "participation_limit");
    let privacy = block_on(client.privacy()).unwrap();
    assert_eq!((privacy.tasks[0].participations, privacy.ledger.entries), (1, 1));
    assert_eq!((privacy.history.len(), privacy.history[0].round), (1, 1));
    assert!(privacy.tasks[0].spent_epsilon > 0.0);
    // Forgetting does not renew the budget.
    block_on(client.forget()).unwrap();
    assert_eq!(block_on(open(&port).privacy()).unwrap().tasks[0].participations, 1);
    // Nor does a period's end take back what was told.
    port.unix_seconds.set(port.unix_seconds.get() + 31 * 86_400);
    let later = block_on(open(&port).privacy()).unwrap();
    assert_eq!((later.tasks[0].participations, later.tasks[0].spent_epsilon), (0, 0.0));
    let ever = later.ever.unwrap();
    assert_eq!((ever.contributions, ever.reports), (1, 0));
    assert_eq!(ever.epsilon, privacy.tasks[0].spent_epsilon);
    assert_eq!(ever.certainty, privacy.tasks[0].certainty);
}

#[test]
fn a_lost_answer_is_asked_for_with_the_same_bytes() {
    let server = Server::new();
    let port = device(&server, 1);
    let client = open(&port);
    teach(&client, 12);
    block_on(client.consent(true)).unwrap();
    server.borrow_mut().answers_lost = true;
    assert!(block_on(client.contribute()).unwrap_err().is(Code::NetworkFailed));
    server.borrow_mut().answers_lost = false;
    // More was learnt and the page was reloaded meanwhile; the begun contribution is still the same.
    teach(&client, 3);
    let client = open(&port);
    let sent = block_on(client.contribute()).unwrap();
    assert!(sent.contributed && sent.duplicate);
    assert_eq!(server.borrow().contributions.len(), 1);
    assert_eq!(block_on(client.privacy()).unwrap().tasks[0].participations, 1);
}

#[test]
fn a_refused_contribution_does_not_cost_the_device() {
    let server = Server::new();
    let client = open(&device(&server, 1));
    teach(&client, 12);
    block_on(client.consent(true)).unwrap();
    server.borrow_mut().contribution_fails = Some(Problem::new(Code::VersionStale, "moved on"));
    assert!(block_on(client.contribute()).unwrap_err().is(Code::VersionStale));
    assert_eq!(block_on(client.privacy()).unwrap().tasks[0].participations, 0);
    server.borrow_mut().contribution_fails = None;
    assert!(block_on(client.contribute()).unwrap().contributed);
}

#[test]
fn a_damaged_ledger_blocks_contributing_and_nothing_else() {
    let server = Server::new();
    let port = device(&server, 1);
    let client = open(&port);
    teach(&client, 12);
    block_on(client.consent(true)).unwrap();
    block_on(client.contribute()).unwrap();
    let key = Scope::of(URL).key("ledger");
    port.stored().remove(&key);
    server.borrow_mut().publish(2, 0.0);
    let client = open(&port);
    assert_eq!(block_on(client.contribute()).unwrap().reason.unwrap().code, "ledger_corrupt");
    let privacy = block_on(client.privacy()).unwrap();
    assert!(!privacy.ledger.intact && privacy.ever.is_none(), "nobody can say what was sent");
    port.stored().insert(Scope::of(URL).key("device"), b"damaged".to_vec());
    let client = open(&port);
    assert_eq!(block_on(client.contribute()).unwrap().reason.unwrap().code, "ledger_corrupt");
    assert_eq!(run(&client, &picture(1, 0.0), Choice::Auto).top.len(), 5);
}

#[test]
fn an_experiment_assigns_an_arm_and_gets_one_report() {
    let server = Server::new();
    let arm = |n: &str, versions| ArmEntry { name: name(n), weight: 32_768, versions };
    server.borrow_mut().catalog.experiments.push(ExperimentEntry {
        name: name("e"),
        salt: "07".repeat(16),
        seed: 1,
        arms: vec![
            arm("champion", BTreeMap::new()),
            arm("without", [(name("noise-reduction"), 0)].into()),
        ],
        window: 3,
        epsilon: Epsilon::new(1.0).unwrap(),
    });
    let mut arms = std::collections::BTreeSet::new();
    for seed in 0..8 {
        let client = open(&device(&server, seed));
        let privacy = block_on(client.consent(true)).unwrap();
        arms.insert(privacy.experiments[0].arm.to_string());
        let has = client.live().slot(&name("noise-reduction")).is_some();
        assert_eq!(has, privacy.experiments[0].arm.as_str() == "champion");
        if seed == 0 {
            teach(&client, 5);
            assert!(block_on(client.privacy()).unwrap().experiments[0].reported);
        }
    }
    assert_eq!(arms.len(), 2);
    assert_eq!(server.borrow().reports.len(), 1);
}

#[test]
fn reports_stop_where_the_device_would_say_too_much() {
    let server = Server::new();
    let port = device(&server, 1);
    for seed in 1..=4u32 {
        // One experiment after another, as a server may run them: each fits, all of them do not.
        let arms = vec![ArmEntry { name: name("all"), weight: 65_536, versions: BTreeMap::new() }];
        let experiment = ExperimentEntry {
            name: name(&format!("e{seed}")),
            salt: "07".repeat(16),
            seed: u64::from(seed),
            arms,
            window: 1,
            epsilon: Epsilon::new(1.5).unwrap(),
        };
        server.borrow_mut().catalog.experiments = vec![experiment];
        server.borrow_mut().publish(seed + 1, 0.0);
        let client = open(&port);
        block_on(client.consent(true)).unwrap();
        teach(&client, 1);
        let privacy = block_on(client.privacy()).unwrap();
        assert_eq!(privacy.experiments[0].reported, seed <= 2, "{seed}");
        assert_eq!(privacy.ever.unwrap().epsilon, privacy.reports.spent_epsilon);
        assert!((privacy.reports.spent_epsilon - 1.5 * f64::from(seed.min(2))).abs() < 1e-5);
        assert_eq!(server.borrow().reports.len(), seed.min(2) as usize);
    }
    // A month later the device may report again; what it gathered for the refused experiment is still there.
    port.unix_seconds.set(port.unix_seconds.get() + 31 * 86_400);
    let client = open(&port);
    teach(&client, 1);
    assert_eq!(server.borrow().reports.len(), 3);
}

#[test]
fn a_broken_patch_is_left_out_with_its_problem() {
    let server = Server::new();
    {
        let mut server = server.borrow_mut();
        let text = String::from_utf8(files().parts[0].0.clone()).unwrap();
        let manifest = server.blob(text.replace("\"image\"", "\"nowhere\"").as_bytes());
        server.catalog.patches[0].manifest = manifest;
        let graph = server.blob(b"no model");
        server.catalog.patches[1].graph = graph;
    }
    let client = open(&device(&server, 1));
    let broken: Vec<String> =
        client.describe().broken.into_iter().map(|b| b.problem.code).collect();
    assert_eq!(broken, ["model_invalid", "patch_mismatch"]);
    assert!(run(&client, &picture(1, 0.9), Choice::Auto).patches.is_empty());
}

#[test]
fn it_opens_offline_after_a_first_visit_and_says_so_before() {
    let server = Server::new();
    let port = device(&server, 1);
    server.borrow_mut().offline = true;
    let options = || Options { workshop: workshop(), ..Options::default() };
    let first = block_on(Client::open(port.clone(), URL, options(), &|_| {}, &|| false));
    assert!(first.err().unwrap().is(Code::NetworkFailed));
    server.borrow_mut().offline = false;
    open(&port);
    server.borrow_mut().offline = true;
    let client = open(&port);
    assert_eq!(run(&client, &picture(1, 0.0), Choice::Auto).catalog_version, 1);
    assert!(block_on(client.refresh()).unwrap_err().is(Code::NetworkFailed));
}

#[test]
fn runs_go_on_while_a_training_pauses() {
    let server = Server::new();
    let client = open(&device(&server, 1));
    teach(&client, 6);
    let ran = Cell::new(0);
    let report = block_on(client.train(
        &TrainOptions { epochs: Some(3), ..TrainOptions::default() },
        &|_| {
            let input = picture(1, 0.0);
            let run = client.run(&input, &RunOptions::default(), &|| false).now_or_never();
            assert!(run.unwrap().is_ok());
            ran.set(ran.get() + 1);
            let second = client.train(&TrainOptions::default(), &|_| {}, &|| false).now_or_never();
            assert!(second.unwrap().unwrap_err().is(Code::Conflict));
        },
        &|| false,
    ));
    assert_eq!(ran.get(), report.unwrap().steps);
}

#[test]
fn an_answer_judges_the_patches_that_the_input_is_meant_for() {
    let server = Server::new();
    let port = device(&server, 1);
    let client = open(&port);
    let input = picture(1, 0.9);
    let considered = |client: &Client<MemoryPort>, patch: &str| {
        let candidates = run(client, &input, Choice::Auto).candidates;
        candidates.into_iter().find(|c| c.name.as_str() == patch).unwrap()
    };
    let before = considered(&client, "noise-reduction");
    assert!(before.chosen && before.correction == 0.0);
    let stitched = run(&client, &input, Choice::Named(vec![name("noise-reduction")]));
    let label = stitched.top[0].label.clone();
    let helps = stitched.base_top.unwrap()[0].label != label;
    for _ in 0..3 {
        block_on(client.learn(&input, &Answer::Label(label.clone()))).unwrap();
    }
    let expected = 3.0 * (f64::from(u8::from(helps)) - before.gain.unwrap()) / 23.0;
    let after = considered(&client, "noise-reduction");
    assert!((after.correction - expected).abs() < 1e-9, "{after:?}, not {expected}");
    assert_eq!(after.gain.unwrap(), before.gain.unwrap() + after.correction);
    // What this input is not meant for is not judged by it, and another start remembers.
    assert_eq!(considered(&client, "personal-style").correction, 0.0);
    assert_eq!(considered(&open(&port), "noise-reduction").correction, after.correction);
    block_on(client.forget()).unwrap();
    assert_eq!(considered(&client, "noise-reduction").correction, 0.0);
}

#[test]
fn a_deadline_leaves_patches_out_rather_than_being_late() {
    let client = open(&device(&Server::new(), 1));
    let input = picture(1, 0.9);
    let names = ["noise-reduction", "low-contrast"].map(name).to_vec();
    let within = |deadline_ms: Option<f64>| {
        let choice = Choice::Named(names.clone());
        let options = RunOptions { choice, deadline_ms, ..RunOptions::default() };
        block_on(client.run(&input, &options, &|| false)).unwrap()
    };
    assert_eq!(within(None).patches.len(), 2);
    assert_eq!(within(Some(1e6)).patches.len(), 2);
    let late = within(Some(1e-6));
    assert!(late.patches.is_empty());
    assert_eq!(late.version, late.base_version);
    assert_eq!(late.output, run(&client, &input, Choice::None).output);
    for considered in late.candidates.iter().filter(|c| names.contains(&c.name)) {
        assert_eq!((considered.chosen, considered.reason_code), (false, ReasonCode::Late));
    }
}

#[test]
fn a_run_is_cancelled_between_its_segments() {
    let port = device(&Server::new(), 1);
    let client = open(&port);
    // A primary that is known to take long pauses between its parts.
    for segment in client.live().library.session.segments() {
        (0..9).for_each(|_| client.cost.borrow_mut().observe(&segment.name, 100.0));
    }
    port.tick_ms.set(20.0);
    let asked = Cell::new(0);
    let cancelled = || {
        asked.set(asked.get() + 1);
        asked.get() > 4
    };
    let stopped = block_on(client.run(&picture(1, 0.9), &RunOptions::default(), &cancelled));
    assert!(stopped.unwrap_err().is(Code::Aborted));
    assert!(asked.get() == 5);
    assert!(block_on(client.run(&picture(1, 0.9), &RunOptions::default(), &|| false)).is_ok());
}

#[test]
fn warming_measures_every_patch_and_then_has_nothing_to_do() {
    let client = open(&device(&Server::new(), 1));
    let measured = |client: &Client<MemoryPort>| {
        let candidates = run(client, &picture(1, 0.0), Choice::None).candidates;
        candidates.iter().filter(|c| c.cost_measured).count()
    };
    assert_eq!(measured(&client), 0);
    let rounds = (0..100).take_while(|_| client.warm().unwrap()).count();
    assert!((1..100).contains(&rounds), "{rounds}");
    assert_eq!(measured(&client), client.live().slots.len());
}

#[test]
fn a_token_is_drawn_once_a_round_and_forgotten_on_demand() {
    let server = Server::new();
    let port = device(&server, 1);
    let client = open(&port);
    teach(&client, 12);
    block_on(client.consent(true)).unwrap();
    let full = Problem::new(Code::ParticipationLimit, "this profile drew 4 tokens");
    server.borrow_mut().token_fails = Some(full);
    let refused = block_on(client.contribute()).unwrap();
    assert_eq!(refused.reason.unwrap().code, "participation_limit");
    assert_eq!(block_on(client.privacy()).unwrap().tasks[0].participations, 0);
    server.borrow_mut().token_fails = None;
    // The token outlives a contribution that does not get through, and a reload.
    server.borrow_mut().answers_lost = true;
    assert!(block_on(client.contribute()).is_err());
    let kept = || port.stored().keys().any(|key| key.contains("/token/"));
    assert!(kept());
    server.borrow_mut().answers_lost = false;
    assert!(block_on(open(&port).contribute()).unwrap().contributed);
    assert!(!kept(), "a redeemed token is dropped");
    assert_eq!(server.borrow().draws.len(), 2);
    // A retry asks for the same element, and the server never sees the nullifier at the draw.
    assert_eq!(server.borrow().draws[0], server.borrow().draws[1]);
    let nullifier = server.borrow().contributions[0].1.nullifier();
    assert_ne!(server.borrow().draws[0].blinded.as_bytes(), nullifier.as_bytes());
    server.borrow_mut().publish(2, 0.01);
    server.borrow_mut().answers_lost = true;
    let client = open(&port);
    assert!(block_on(client.contribute()).is_err());
    assert!(kept());
    block_on(client.forget()).unwrap();
    assert!(!kept());
}

#[test]
fn a_token_under_another_key_than_the_catalogs_is_refused() {
    let server = Server::new();
    let client = open(&device(&server, 1));
    teach(&client, 12);
    block_on(client.consent(true)).unwrap();
    let other = Issuer::from_seed(&[4; 32]).unwrap().public_key();
    server.borrow_mut().catalog.tasks[0].token_key = Some(other);
    server.borrow_mut().catalog.version += 1;
    assert!(block_on(client.contribute()).unwrap_err().is(Code::SignatureInvalid));
    assert!(server.borrow().contributions.is_empty());
    assert_eq!(block_on(client.privacy()).unwrap().tasks[0].participations, 0);
}

#[test]
fn forgetting_leaves_nothing_that_trains_contributes_or_tells() {
    let server = Server::new();
    let port = device(&server, 1);
    let client = open(&port);
    teach(&client, 12);
    train(&client);
    block_on(client.consent(true)).unwrap();
    server.borrow_mut().answers_lost = true;
    assert!(block_on(client.contribute()).is_err(), "begun, and its answer lost");
    let keys = |port: &MemoryPort| -> Vec<String> {
        port.stored().keys().map(|key| key.splitn(3, '/').nth(2).unwrap().to_owned()).collect()
    };
    for kept in ["example/", "personal/", "pending/", "token/"] {
        assert!(keys(&port).iter().any(|key| key.starts_with(kept)), "{kept}: {:?}", keys(&port));
    }
    let ledger = port.stored()[&Scope::of(URL).key("ledger")].clone();
    block_on(client.forget()).unwrap();
    let known = ["catalog", "device", "examples", "feedback", "ledger", "personal", "windows"];
    let left: Vec<String> =
        keys(&port).into_iter().filter(|key| !known.contains(&key.as_str())).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(port.stored()[&Scope::of(URL).key("ledger")], ledger, "the promise holds on");
    let client = open(&port);
    assert_eq!(block_on(client.examples()).unwrap().total, 0);
    assert!(block_on(client.privacy()).unwrap().tasks[0].participations == 1);
}

/// Whoever can write to a browser's storage, or a disk that rots, must not end a page: it opens, or says in words why not.
#[test]
fn whatever_stands_in_the_storage_the_page_lives() {
    let server = Server::new();
    let port = device(&server, 1);
    let client = open(&port);
    teach(&client, 6);
    train(&client);
    block_on(client.consent(true)).unwrap();
    server.borrow_mut().answers_lost = true;
    assert!(block_on(client.contribute()).is_err());
    server.borrow_mut().answers_lost = false;
    let whole = port.stored().clone();
    let kind = |key: &str| key.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
    let mut seen = std::collections::BTreeSet::new();
    for (key, bytes) in whole.iter().filter(|(key, _)| seen.insert(kind(key))) {
        let half = &bytes[..bytes.len() / 2];
        let mut flipped = bytes.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x11;
        let long = [bytes.as_slice(), bytes].concat();
        let damages: [&[u8]; 8] =
            [b"", b"{}", b"[]", b"null", b"[[[[[[[[1e999", half, &flipped, &long];
        for damage in damages {
            port.stored().clone_from(&whole);
            port.stored().insert(key.clone(), damage.to_vec());
            let what =
                format!("{key}: {:?}", String::from_utf8_lossy(&damage[..damage.len().min(40)]));
            let options = Options { workshop: workshop(), ..Options::default() };
            match block_on(Client::open(port.clone(), URL, options, &|_| {}, &|| false)) {
                Ok(client) => {
                    assert_eq!(run(&client, &picture(1, 0.0), Choice::Auto).top.len(), 5, "{what}");
                    block_on(client.privacy()).unwrap();
                    block_on(client.examples()).unwrap();
                    let sent = block_on(client.contribute());
                    assert!(!sent.is_err_and(|problem| problem.is(Code::Internal)), "{what}");
                    teach(&client, 1);
                    block_on(client.forget()).unwrap();
                }
                Err(problem) => assert!(!problem.is(Code::Internal), "{what}: {problem}"),
            }
        }
    }
    assert!(seen.len() >= 9, "{seen:?}");
}
