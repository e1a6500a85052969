//! Every bad input gets a typed problem, through the very router that is served.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, header};
use backstitch_onnx::Digest;
use backstitch_protocol::catalog::Catalog;
use backstitch_protocol::contribution::MEDIA_TYPE;
use backstitch_protocol::problem::Code;
use backstitch_protocol::trust::{SignedCatalog, Trust};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::{App, document, metrics_handle};
use crate::config::Config;
use crate::registry::{self, Source};
use crate::round::Rounds;
use crate::tests::{Hands, config, frame};

struct Bench {
    app: App,
    hands: Hands,
    public: Router,
    admin: Router,
    _folder: TempDir,
    _runners: JoinSet<()>,
}

impl Bench {
    async fn new(goal: u32) -> Self {
        Self::with(goal, |_| {}).await
    }

    /// The library's description is edited first.
    async fn with(goal: u32, edit: impl Fn(&mut Value)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path(), goal);
        crate::tests::write_library(&folder.path().join("library"), goal, edit);
        config.public.cors_origins = vec!["https://shop.example".into()];
        std::fs::create_dir_all(&config.data).unwrap();
        let hands = Hands::default();
        let (app, runners) = app(&config, &hands).await;
        Self {
            hands,
            public: super::public(&app, &config),
            admin: super::admin(&app, &config),
            app,
            _folder: folder,
            _runners: runners,
        }
    }

    async fn catalog(&self) -> Catalog {
        let text = body(self.get("/v1/libraries/toy/catalog", &[]).await).await;
        let signed: SignedCatalog = serde_json::from_slice(&text).unwrap();
        Trust::default().accept(&signed, 1_800_000_001).unwrap()
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.public.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], bytes: Vec<u8>) -> (u16, Value) {
        answer(&self.public, path, headers, bytes).await
    }

    async fn contribute(&self, bytes: Vec<u8>) -> (u16, Value) {
        let length = bytes.len().to_string();
        let headers = [("content-type", MEDIA_TYPE), ("content-length", &length)];
        self.post("/v1/tasks/toy.style/contributions", &headers, bytes).await
    }

    async fn act(&self, path: &str, value: Value) -> (u16, Value) {
        let bytes = value.to_string().into_bytes();
        let length = bytes.len().to_string();
        let headers = [
            ("content-type", "application/json"),
            ("content-length", &length),
            ("authorization", "Bearer token"),
        ];
        answer(&self.admin, path, &headers, bytes).await
    }

    async fn state(&self) -> Value {
        let request = Request::get("/admin/v1/state").header("authorization", "Bearer token");
        let response =
            self.admin.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        serde_json::from_slice(&body(response).await).unwrap()
    }
}

async fn app(config: &Config, hands: &Hands) -> (App, JoinSet<()>) {
    use sha2::Digest as _;
    let services = crate::server::services(config, hands.clock()).await.unwrap();
    let source = Source::parse(&config.libraries[0]).unwrap();
    registry::import(&services.store, &services.blobs, &source, 1_800_000_000).await.unwrap();
    let mut runners = JoinSet::new();
    let rounds = Rounds::start(&services, &mut runners).await.unwrap();
    services.catalogs.issue_all().await.unwrap();
    let (_, stopping) = tokio::sync::watch::channel(false);
    let app = App {
        rounds: rounds.into(),
        token_digest: sha2::Sha256::digest(b"token").into(),
        started_at: services.clock.now(),
        services,
        stopping,
        metrics: metrics_handle().unwrap(),
        console_url: None,
    };
    (app, runners)
}

async fn answer(
    router: &Router,
    path: &str,
    headers: &[(&str, &str)],
    bytes: Vec<u8>,
) -> (u16, Value) {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.clone().oneshot(request.body(Body::from(bytes)).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    if status >= 400 {
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
    (status, serde_json::from_slice(&body(response).await).unwrap())
}

async fn body(response: Response<Body>) -> Vec<u8> {
    to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()
}

fn is(answer: &(u16, Value), code: Code) -> bool {
    answer.0 == code.status() && answer.1["code"] == code.as_str()
}

#[tokio::test]
async fn a_probe_is_a_file_that_the_catalog_vouches_for() {
    // Any model of one input and one output is a probe: here the primary itself, at its own input.
    let features = json!(["probe.a", "probe.b", "probe.c"]);
    let probe =
        json!({ "name": "self", "site": "x", "file": "primary.onnx", "features": features });
    let bench = Bench::with(2, |library| library["primary"]["probes"] = json!([probe])).await;
    let catalog = bench.catalog().await;
    let probe = &catalog.primary.probes[0];
    assert_eq!((probe.site.as_str(), &probe.model), ("x", &catalog.primary.model));
    assert_eq!(probe.features.len(), 3);
}

#[tokio::test]
async fn a_catalog_is_signed_cached_and_complete() {
    let bench = Bench::new(2).await;
    let catalog = bench.catalog().await;
    assert_eq!(
        (catalog.tasks[0].parameters, catalog.tasks[0].goal, catalog.tasks[0].open),
        (8, 2, true)
    );
    let etag = format!("\"{}\"", catalog.version);
    let unchanged = bench.get("/v1/libraries/toy/catalog", &[("if-none-match", &etag)]).await;
    assert_eq!(unchanged.status(), 304);
    let blob = &catalog.primary.model;
    let path = format!("/v1/blobs/{}", blob.digest.hex());
    let whole = bench.get(&path, &[]).await;
    assert!(whole.headers()[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
    let bytes = body(whole).await;
    assert_eq!((Digest::of(&bytes), bytes.len() as u64), (blob.digest, blob.bytes));
    let part = bench.get(&path, &[("range", "bytes=2-5")]).await;
    assert_eq!(part.status(), 206);
    assert_eq!(body(part).await, &bytes[2..6]);
    assert_eq!(bench.get(&path, &[("range", "bytes=999999-")]).await.status(), 416);
    let strangers = [
        format!("/v1/blobs/{}", "0".repeat(64)),
        "/v1/libraries/other/catalog".into(),
        "/v1/nothing".into(),
    ];
    for path in strangers {
        let response = bench.get(&path, &[]).await;
        assert_eq!(response.status(), 404, "{path}");
        let problem: Value = serde_json::from_slice(&body(response).await).unwrap();
        assert_eq!(problem["code"], "not_found");
    }
    assert_eq!(bench.get("/v1/blobs/xyz", &[]).await.status(), 400);
    assert_eq!(bench.get("/v1/libraries/NO/catalog", &[]).await.status(), 400);
}

#[tokio::test]
async fn contributions_make_a_version_and_bad_ones_are_refused() {
    let bench = Bench::new(2).await;
    let task = &bench.catalog().await.tasks[0];
    let good = frame(task.base, 1, 1, &[0.1; 8]);
    assert!(is(&bench.contribute(good[..good.len() - 1].to_vec()).await, Code::FrameLength));
    assert!(is(&bench.contribute([good.clone(), vec![0]].concat()).await, Code::FrameLength));
    let mut foreign = good.clone();
    foreign[0] = b'X';
    assert!(is(&bench.contribute(foreign).await, Code::FrameInvalid));
    let mut huge = good.clone();
    huge[72..76].copy_from_slice(&[0xff, 0x7f, 0xff, 0x7f]);
    assert!(is(&bench.contribute(huge).await, Code::NormExceeded));
    assert!(is(
        &bench.contribute(frame(Digest::of(b"old"), 1, 1, &[0.1; 8])).await,
        Code::VersionStale
    ));
    let (status, accepted) = bench.contribute(good.clone()).await;
    assert_eq!(
        (status, &accepted["round"], &accepted["duplicate"]),
        (200, &json!(1), &json!(false))
    );
    assert_eq!(bench.contribute(good).await.1["duplicate"], true);
    assert!(is(&bench.contribute(frame(task.base, 1, 1, &[0.2; 8])).await, Code::NullifierReused));
    let state = bench.state().await;
    let round = &state["libraries"][0]["tasks"][0]["rounds"][0];
    assert_eq!(round["rejected"]["frame_length"], 2);
    assert_eq!(state["libraries"][0]["contributions"]["accepted"], 1);

    assert_eq!(bench.contribute(frame(task.base, 2, 1, &[0.1; 8])).await.0, 200);
    let mut version = 1;
    for _ in 0..1000 {
        version = bench.catalog().await.tasks[0].base_versions[0];
        if version == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(version, 2);
    let catalog = bench.catalog().await;
    assert_eq!(catalog.tasks[0].round, 2);
    assert_eq!(catalog.ledger.sequence, 3);
    assert!(catalog.ledger.spent.values().all(|rho| rho.0 > 0));
    assert!(is(&bench.contribute(frame(task.base, 3, 1, &[0.1; 8])).await, Code::VersionStale));
}

#[tokio::test]
async fn uploads_must_state_what_they_are() {
    let bench = Bench::new(2).await;
    let path = "/v1/tasks/toy.style/contributions";
    let frame = vec![0; 88];
    let refused =
        |headers: &'static [(&'static str, &'static str)]| bench.post(path, headers, frame.clone());
    assert!(is(&refused(&[("content-type", MEDIA_TYPE)]).await, Code::LengthRequired));
    assert!(is(
        &refused(&[("content-type", "text/plain"), ("content-length", "88")]).await,
        Code::RequestInvalid
    ));
    let encoded =
        [("content-type", MEDIA_TYPE), ("content-length", "88"), ("content-encoding", "gzip")];
    assert!(is(&bench.post(path, &encoded, frame.clone()).await, Code::LengthRequired));
    let endless = [("content-type", MEDIA_TYPE), ("content-length", "99999999999")];
    assert!(is(&bench.post(path, &endless, frame.clone()).await, Code::BodyTooLarge));
    // Less than stated: the line broke.
    let broken = [("content-type", MEDIA_TYPE), ("content-length", "88")];
    let answer = bench.post(path, &broken, frame[..40].to_vec()).await;
    assert!(
        is(&answer, Code::RequestInvalid) && answer.1["hint"].as_str().unwrap().contains("again")
    );
    assert!(is(
        &bench.post("/v1/tasks/nodot/contributions", &broken, vec![]).await,
        Code::NameInvalid
    ));
    assert!(is(
        &bench.post("/v1/tasks/toy.other/contributions", &broken, vec![]).await,
        Code::NotFound
    ));
    let get = bench.get(path, &[]).await;
    assert_eq!(get.status(), 405);
}

#[tokio::test]
async fn only_the_listed_origins_may_call() {
    let bench = Bench::new(2).await;
    let allowed = bench.get("/v1/libraries", &[("origin", "https://shop.example")]).await;
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://shop.example");
    assert!(allowed.headers().get("access-control-allow-credentials").is_none());
    let other = bench.get("/v1/libraries", &[("origin", "https://evil.example")]).await;
    assert!(other.headers().get("access-control-allow-origin").is_none());
    assert_eq!(other.headers()["x-content-type-options"], "nosniff");
    let page = bench.get("/", &[]).await;
    if page.status() == 200 {
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("'wasm-unsafe-eval'") && !policy.contains("'unsafe-inline'"));
        let allowed = page.headers()["permissions-policy"].to_str().unwrap();
        assert!(
            allowed.contains("camera=(self)") && allowed.contains("microphone=()"),
            "{allowed}"
        );
    }
    assert_eq!(
        bench.get("/console", &[]).await.status(),
        404,
        "outside of a demo it stays on its port"
    );
}

/// Every path of the OpenAPI document with each of its methods, and what stands beside it.
fn routes() -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(&document().to_json().unwrap()).unwrap();
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let filled = path.split('/').map(|part| if part.starts_with('{') { "toy" } else { part });
        let filled = filled.collect::<Vec<_>>().join("/");
        for method in methods.as_object().unwrap().keys() {
            routes.push((method.to_uppercase(), filled.clone()));
        }
    }
    assert!(routes.len() > 12, "{routes:?}");
    let pages = ["/", "/console", "/openapi.json", "/assets/none.js", "/nothing", "/v1/nothing"];
    for path in pages.into_iter().chain(["/v1/tasks/toy.style/contributions"]) {
        for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
            routes.push((method.into(), path.into()));
        }
    }
    let dist = concat!(env!("CARGO_MANIFEST_DIR"), "/../web/dist/assets");
    for file in std::fs::read_dir(dist).into_iter().flatten().map(Result::unwrap) {
        routes.push(("GET".into(), format!("/assets/{}", file.file_name().to_string_lossy())));
    }
    routes
}

#[tokio::test]
async fn every_answer_of_both_planes_has_a_strict_policy() {
    let bench = Bench::new(2).await;
    let mut config = Config::in_folder("unused");
    config.public.requests_per_second = 1;
    let limited = super::public(&bench.app, &config);
    let mut statuses = std::collections::BTreeSet::new();
    for (method, path) in routes() {
        for (plane, router) in [&bench.public, &bench.admin, &limited].into_iter().enumerate() {
            let mut request = Request::builder().method(method.as_str()).uri(&path);
            if method == "OPTIONS" {
                request = request.header("origin", "https://shop.example");
                request = request.header("access-control-request-method", "POST");
            }
            let request = request.body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let (at, headers) = (format!("{method} {path} on plane {plane}"), response.headers());
            let policies: Vec<_> = headers.get_all("content-security-policy").iter().collect();
            assert_eq!(policies.len(), 1, "{at}");
            let policy = policies[0].to_str().unwrap();
            for wanted in ["default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"] {
                assert!(policy.contains(wanted), "{at}: {policy}");
            }
            for lax in ["'unsafe-inline'", "'unsafe-eval'", "*", "http:", "https:"] {
                assert!(!policy.contains(lax), "{at}: {policy}");
            }
            let is_page = ["/", "/console"].contains(&path.as_str()) || path.starts_with("/assets");
            assert!(is_page || !policy.contains("script-src"), "{at}: {policy}");
            for (name, value) in
                [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY")]
            {
                assert_eq!(headers[name], value, "{at}");
            }
            statuses.insert(response.status().as_u16());
        }
    }
    for wanted in [200, 401, 404, 405, 429] {
        assert!(statuses.contains(&wanted), "no answer {wanted} was looked at: {statuses:?}");
    }
}

#[tokio::test]
async fn operators_need_the_token_and_reasons() {
    let bench = Bench::new(2).await;
    let request = Request::get("/admin/v1/state").body(Body::empty()).unwrap();
    let refused = bench.admin.clone().oneshot(request).await.unwrap();
    assert_eq!(refused.status(), 401);
    let hidden = bench.get("/admin/v1/state", &[("authorization", "Bearer token")]).await;
    assert_eq!(hidden.status(), 404, "the public port does not know the operator plane");
    for path in ["/livez", "/readyz", "/metrics"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        assert_eq!(bench.admin.clone().oneshot(request).await.unwrap().status(), 200, "{path}");
    }
    let promote = "/admin/v1/libraries/toy/patches/style/promote";
    let rollback = "/admin/v1/libraries/toy/patches/style/rollback";
    assert!(is(
        &bench.act(promote, json!({ "version": 1, "reason": " " })).await,
        Code::RequestInvalid
    ));
    assert!(is(
        &bench.act(promote, json!({ "version": 1, "reason": "x", "more": 1 })).await,
        Code::RequestInvalid
    ));
    assert!(is(&bench.act(promote, json!({ "version": 9, "reason": "x" })).await, Code::NotFound));
    assert!(is(
        &bench.act(promote, json!({ "version": 1, "expected": 5, "reason": "x" })).await,
        Code::Conflict
    ));
    assert!(
        is(&bench.act(rollback, json!({ "reason": "x" })).await, Code::Conflict),
        "there is no previous one"
    );
    assert_eq!(bench.act(promote, json!({ "version": 1, "reason": "x" })).await.0, 200);
}

#[tokio::test]
async fn an_experiment_runs_from_start_to_stop() {
    let bench = Bench::new(2).await;
    let experiments = "/admin/v1/libraries/toy/experiments";
    let proposal = |challenger: u32, share: f64| json!({ "name": "without", "layer": "h", "patch": "style", "challenger": challenger, "share": share, "epsilon": 1.0, "window": 4 });
    assert!(
        is(&bench.act(experiments, proposal(1, 0.5)).await, Code::RequestInvalid),
        "both arms alike"
    );
    assert!(is(&bench.act(experiments, proposal(7, 0.5)).await, Code::NotFound));
    assert!(is(&bench.act(experiments, proposal(0, 1.0)).await, Code::RequestInvalid));
    assert_eq!(bench.act(experiments, proposal(0, 0.25)).await.0, 200);
    assert!(is(&bench.act(experiments, proposal(0, 0.5)).await, Code::Conflict), "one at a time");
    let entry = &bench.catalog().await.experiments[0];
    assert_eq!((entry.arms[0].weight, entry.arms[1].weight), (49_152, 16_384));
    assert!(entry.salt_bytes().is_ok());

    let report = |device: u8, arm: &str, outcome: bool| json!({ "arm": arm, "outcome": outcome, "nullifier": hex::encode([device; 32]) });
    let send = async |id: &str, report: Value| {
        let bytes = report.to_string().into_bytes();
        let length = bytes.len().to_string();
        let headers = [("content-type", "application/json"), ("content-length", length.as_str())];
        bench.post(&format!("/v1/experiments/{id}/reports"), &headers, bytes).await
    };
    assert_eq!(send("toy.without", report(1, "champion", true)).await.1["duplicate"], false);
    assert_eq!(send("toy.without", report(1, "champion", true)).await.1["duplicate"], true);
    assert!(is(&send("toy.without", report(1, "champion", false)).await, Code::NullifierReused));
    assert!(is(&send("toy.without", report(2, "third", true)).await, Code::NotFound));
    assert!(is(&send("toy.other", report(2, "champion", true)).await, Code::NotFound));
    assert!(is(
        &send("toy.without", json!({ "arm": "champion", "outcome": true, "nullifier": "ab" }))
            .await,
        Code::RequestInvalid
    ));
    let state = bench.state().await;
    let shown = &state["libraries"][0]["experiments"][0];
    assert_eq!((&shown["state"], &shown["arms"][0]["reports"]), (&json!("running"), &json!(1)));
    assert!(shown["reason"].as_str().unwrap().starts_with("not yet"));

    let stop = format!("{experiments}/without/stop");
    assert_eq!(bench.act(&stop, json!({ "reason": "enough" })).await.0, 200);
    assert!(is(&bench.act(&stop, json!({ "reason": "enough" })).await, Code::NotFound));
    assert!(is(&send("toy.without", report(3, "champion", true)).await, Code::RoundClosed));
    assert!(bench.catalog().await.experiments.is_empty());
}

#[tokio::test]
async fn experiments_share_the_promise_for_reports() {
    let edit = |library: &mut Value| {
        library["reports"] = json!({ "epsilon": 2.5, "period_days": 30 });
    };
    let bench = Bench::with(2, edit).await;
    let experiments = "/admin/v1/libraries/toy/experiments";
    let start = async |name: &str, epsilon: f64| {
        let proposal = json!({ "name": name, "layer": "h", "patch": "style", "challenger": 0, "share": 0.5, "epsilon": epsilon, "window": 4 });
        bench.act(experiments, proposal).await
    };
    assert!(is(&start("greedy", 2.6).await, Code::BudgetExhausted));
    for name in ["first", "second"] {
        assert_eq!(start(name, 1.0).await.0, 200);
        let stop = format!("{experiments}/{name}/stop");
        assert_eq!(bench.act(&stop, json!({ "reason": "enough" })).await.0, 200);
    }
    // Whoever is in all of them within 30 days has said ε = 2 already.
    let refused = start("third", 1.0).await;
    assert!(is(&refused, Code::BudgetExhausted), "{refused:?}");
    assert!(
        refused.1["hint"].as_str().unwrap().contains("ε up to 0.50, wait 30 days"),
        "{refused:?}"
    );
    let reports = &bench.state().await["libraries"][0]["reports"];
    assert_eq!((&reports["spent_epsilon"], &reports["budget_epsilon"]), (&json!(2.0), &json!(2.5)));
    let budget = bench.catalog().await.reports;
    assert_eq!((budget.epsilon.value(), budget.period_days), (2.5, 30));
    assert_eq!(start("small", 0.5).await.0, 200, "a refusal debits nothing");
    assert_eq!(
        bench.act(&format!("{experiments}/small/stop"), json!({ "reason": "x" })).await.0,
        200
    );
    bench.hands.forward_days(29);
    assert!(is(&start("third", 1.0).await, Code::BudgetExhausted));
    bench.hands.forward_days(2);
    assert_eq!(start("third", 1.0).await.0, 200);
}

#[test]
fn the_openapi_document_names_every_path() {
    let text = document().to_json().unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [
        "/v1/libraries/{library}/catalog",
        "/v1/blobs/{digest}",
        "/v1/tasks/{task}/contributions",
        "/v1/experiments/{experiment}/reports",
        "/v1/events",
        "/admin/v1/state",
        "/metrics",
    ] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
}

/// A request for the token of a device's round.
fn draw(device: u8, round: u64) -> (backstitch_protocol::token::Blinding, Vec<u8>) {
    use backstitch_protocol::token::{Blinding, Profile, TokenRequest};
    let task = backstitch_protocol::id::Name::new("style").unwrap();
    let blinding = Blinding::derive(&[device; 32], &task, round).unwrap();
    let request = TokenRequest {
        task: "toy.style".into(),
        round,
        profile: Profile::derive(&[device; 32]),
        blinded: blinding.blinded().clone(),
        voucher: None,
    };
    (blinding, serde_json::to_vec(&request).unwrap())
}

#[tokio::test]
async fn a_contribution_needs_the_token_of_its_round() {
    use backstitch_protocol::contribution::{Contribution, Nullifier};
    use backstitch_protocol::token::TokenScope;
    let bench = Bench::with(2, |library| library["tasks"][0]["tokens"] = true.into()).await;
    let catalog = bench.catalog().await;
    let task = &catalog.tasks[0];
    let frame_of = |device: u8, value: f32| {
        let delta = backstitch_protocol::delta::Delta::between(&[0.0; 8], &[value; 8]).unwrap();
        let nullifier = Nullifier::derive(&[device; 32], &task.name, 1);
        Contribution::new(task.base, nullifier, delta.clip(task.clip_norm).unwrap()).encode()
    };
    let send = async |frame: &[u8], token: Option<&str>| {
        let length = frame.len().to_string();
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("content-type", MEDIA_TYPE), ("content-length", &*length)];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        bench.post("/v1/tasks/toy.style/contributions", &headers, frame.to_vec()).await
    };
    let drawn = async |device: u8, round: u64| {
        let (blinding, body) = draw(device, round);
        let length = body.len().to_string();
        let headers = [("content-type", "application/json"), ("content-length", &*length)];
        (blinding, bench.post("/v1/tokens", &headers, body).await)
    };
    let (blinding, answer) = drawn(1, 1).await;
    assert_eq!(answer.0, 200, "{}", answer.1);
    let answer = serde_json::from_value(answer.1).unwrap();
    let scope = TokenScope { library: &catalog.library, task: &task.name, round: 1 };
    let token = blinding.finish(&answer, task.token_key.as_ref().unwrap(), &scope).unwrap().hex();
    let frame = frame_of(1, 0.1);
    for wrong in [None, Some(&*"0".repeat(64)), Some("x"), Some("")] {
        assert!(is(&send(&frame, wrong).await, Code::TokenInvalid), "{wrong:?}");
    }
    assert!(is(&send(&frame_of(2, 0.1), Some(&token)).await, Code::TokenInvalid), "of another");
    assert_eq!(send(&frame, Some(&token)).await.1["duplicate"], false);
    assert_eq!(send(&frame, Some(&token)).await.1["duplicate"], true);
    assert!(is(&send(&frame_of(1, 0.2), Some(&token)).await, Code::NullifierReused));
    assert!(is(&drawn(2, 7).await.1, Code::RoundClosed));
    assert_eq!(bench.state().await["libraries"][0]["contributions"]["accepted"], 1);
    assert_eq!(bench.app.rounds.rejected(&"toy.style".parse().unwrap())["token_invalid"], 5);
}
