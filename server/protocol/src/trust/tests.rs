//! One test for each thing that a client refuses.

use super::*;
use crate::catalog::{Blob, LedgerHead, PrimaryEntry};
use crate::privacy::{ClipNorm, Delta, Epsilon, NoiseMultiplier};

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// The operator's keys: a root and the release key of this serial.
struct Operator {
    root: SigningKey,
    release: SigningKey,
    serial: u64,
}

const OPERATOR: fn(u64) -> Operator =
    |serial| Operator { root: key(1), release: key(100 + serial as u8), serial };

impl Operator {
    fn certificate(&self) -> Certificate {
        let release = ReleaseKey {
            format: 1,
            key: public(&self.release),
            serial: self.serial,
            issued_at: NOW,
            expires_at: NOW + 90 * DAY,
        };
        Certificate::sign(&release, &self.root).unwrap()
    }

    fn sign(&self, catalog: &Catalog) -> SignedCatalog {
        SignedCatalog::sign(catalog, &self.release, self.certificate()).unwrap()
    }
}

fn catalog(version: u64) -> Catalog {
    Catalog {
        format: 1,
        library: name("fashion"),
        title: String::new(),
        description: String::new(),
        modality: "image".to_owned(),
        version,
        issued_at: NOW,
        expires_at: NOW + 7 * DAY,
        primary: PrimaryEntry {
            model: Blob { digest: Digest::of(b"model"), bytes: 5 },
            input: "image".to_owned(),
            output: "logits".to_owned(),
            labels: vec![],
            preprocessing: serde_json::Value::Null,
            probes: Vec::new(),
        },
        patches: vec![],
        tasks: vec![],
        experiments: vec![],
        reports: Default::default(),
        ledger: LedgerHead {
            sequence: 10 + version,
            head: format!("head {version}"),
            spent: [(name("style"), RhoQuanta(1000 * version))].into(),
        },
        samples: None,
    }
}

/// A client that pins the root and has seen version 5 under release key 2.
fn client() -> Trust {
    let mut trust = Trust::pinned(&public(&key(1)));
    trust.accept(&OPERATOR(2).sign(&catalog(5)), NOW).unwrap();
    trust
}

/// The code of the refusal; what is refused leaves no trace.
fn refusal(trust: &mut Trust, signed: &SignedCatalog, now: u64) -> &'static str {
    let before = trust.clone();
    let problem = trust.accept(signed, now).unwrap_err();
    assert_eq!(*trust, before);
    problem.code()
}

#[test]
fn the_same_and_a_newer_catalog_are_accepted() {
    let mut trust = client();
    trust.accept(&OPERATOR(2).sign(&catalog(5)), NOW).unwrap();
    trust.accept(&OPERATOR(2).sign(&catalog(6)), NOW).unwrap();
    assert_eq!((trust.version, trust.ledger_sequence), (6, 16));
}

#[test]
fn a_rotated_release_key_is_accepted_under_the_pinned_root_and_ends_the_old_one() {
    let mut trust = client();
    trust.accept(&OPERATOR(3).sign(&catalog(6)), NOW).unwrap();
    // The old key may have been stolen: that is why it was replaced.
    let stolen = OPERATOR(2).sign(&catalog(7));
    assert_eq!(refusal(&mut trust, &stolen, NOW), "catalog_rollback");
    let twin = Operator { release: key(200), ..OPERATOR(3) }.sign(&catalog(7));
    assert_eq!(refusal(&mut trust, &twin, NOW), "catalog_rollback");
}

#[test]
fn rollback_is_refused() {
    assert_eq!(refusal(&mut client(), &OPERATOR(2).sign(&catalog(4)), NOW), "catalog_rollback");
}

#[test]
fn freeze_is_refused() {
    // The attacker repeats the last good catalog for ever.
    let last = OPERATOR(2).sign(&catalog(5));
    let mut trust = client();
    trust.accept(&last, NOW + 7 * DAY - 1).unwrap();
    assert_eq!(refusal(&mut trust, &last, NOW + 7 * DAY), "catalog_expired");
}

#[test]
fn mix_and_match_is_refused() {
    let operator = OPERATOR(2);
    let mut trust = client();
    // Two catalogs of one number, both well signed: one of them belongs to another state.
    let twin = operator.sign(&Catalog { title: "other".to_owned(), ..catalog(5) });
    assert_eq!(refusal(&mut trust, &twin, NOW), "catalog_rollback");
    // The text of one under the signature or the certificate of another.
    let (a, b) = (operator.sign(&catalog(6)), operator.sign(&catalog(7)));
    let mixed = SignedCatalog { payload: a.payload.clone(), ..b };
    assert_eq!(refusal(&mut trust, &mixed, NOW), "signature_invalid");
    let mixed = SignedCatalog { certificate: OPERATOR(3).certificate(), ..a };
    assert_eq!(refusal(&mut trust, &mixed, NOW), "signature_invalid");
}

#[test]
fn a_wrong_root_is_refused() {
    let stranger = Operator { root: key(9), ..OPERATOR(2) };
    assert_eq!(refusal(&mut client(), &stranger.sign(&catalog(6)), NOW), "signature_invalid");
    // Also where the stranger states the right root.
    let mut forged = stranger.sign(&catalog(6));
    forged.certificate.root = public(&key(1));
    assert_eq!(refusal(&mut client(), &forged, NOW), "signature_invalid");
    // Without a pin, the first root is remembered.
    let mut first = Trust::default();
    first.accept(&stranger.sign(&catalog(6)), NOW).unwrap();
    assert_eq!(refusal(&mut first, &OPERATOR(2).sign(&catalog(7)), NOW), "signature_invalid");
}

#[test]
fn a_wrong_release_key_is_refused() {
    let operator = OPERATOR(2);
    let forged = SignedCatalog::sign(&catalog(6), &key(9), operator.certificate()).unwrap();
    assert_eq!(refusal(&mut client(), &forged, NOW), "signature_invalid");
    // The root's key signs certificates, not catalogs, and a certificate is no catalog.
    let forged = SignedCatalog::sign(&catalog(6), &operator.root, operator.certificate()).unwrap();
    assert_eq!(refusal(&mut client(), &forged, NOW), "signature_invalid");
    let crossed = signed(CERTIFICATE_LABEL, &operator.sign(&catalog(6)).payload, &operator.release);
    let forged = SignedCatalog { signature: crossed, ..operator.sign(&catalog(6)) };
    assert_eq!(refusal(&mut client(), &forged, NOW), "signature_invalid");
}

#[test]
fn an_expired_release_key_is_refused() {
    let fresh = Catalog { expires_at: NOW + 365 * DAY, ..catalog(6) };
    let signed = OPERATOR(2).sign(&fresh);
    client().accept(&signed, NOW + 90 * DAY - 1).unwrap();
    assert_eq!(refusal(&mut client(), &signed, NOW + 90 * DAY), "catalog_expired");
}

#[test]
fn an_expired_catalog_is_refused() {
    let old = Catalog { expires_at: NOW, ..catalog(6) };
    assert_eq!(refusal(&mut client(), &OPERATOR(2).sign(&old), NOW), "catalog_expired");
}

#[test]
fn ledger_regression_is_refused() {
    let ledger = |sequence, head: &str, spent: &[(&str, u64)]| {
        let spent = spent.iter().map(|(task, rho)| (name(task), RhoQuanta(*rho))).collect();
        let ledger = LedgerHead { sequence, head: head.to_owned(), spent };
        OPERATOR(2).sign(&Catalog { ledger, ..catalog(6) })
    };
    let mut trust = client();
    let backward = [
        ledger(14, "head 5", &[("style", 5000)]),
        ledger(15, "another head", &[("style", 5000)]),
        ledger(16, "head 6", &[("style", 4999)]),
        ledger(16, "head 6", &[("other", 9000)]),
    ];
    for signed in backward {
        assert_eq!(refusal(&mut trust, &signed, NOW), "ledger_regression");
    }
    trust.accept(&ledger(16, "head 6", &[("style", 5000), ("other", 1)]), NOW).unwrap();
}

#[test]
fn overspend_is_refused() {
    let task = TaskEntry {
        name: name("style"),
        patches: vec![],
        base_versions: vec![],
        base: Digest::of(b""),
        parameters: 1,
        round: 1,
        goal: 8,
        clip_norm: ClipNorm::new(1.0).unwrap(),
        noise_multiplier: NoiseMultiplier::new(2.54).unwrap(),
        max_participations: 4,
        period_days: 30,
        min_separation: 1,
        noise_band: 1,
        measures: vec![],
        epsilon: Epsilon::new(4.0).unwrap(),
        delta: Delta::new(1e-6).unwrap(),
        period_spent: RhoQuanta(0),
        token_key: None,
        open: true,
        closed_reason: None,
    };
    let offered = |task| OPERATOR(2).sign(&Catalog { tasks: vec![task], ..catalog(6) });
    client().accept(&offered(task.clone()), NOW).unwrap();
    let spent = TaskEntry { period_spent: RhoQuanta(task.budget().0 + 1), ..task.clone() };
    assert_eq!(refusal(&mut client(), &offered(spent.clone()), NOW), "ledger_overspent");
    let greedy = TaskEntry { max_participations: 5, ..task.clone() };
    assert_eq!(refusal(&mut client(), &offered(greedy), NOW), "ledger_overspent");
    // A task that has stopped taking contributions keeps its promise from there on.
    client().accept(&offered(TaskEntry { open: false, ..spent }), NOW).unwrap();
}

#[test]
fn experiments_that_ask_too_much_are_refused() {
    let experiment = |name: &str, epsilon: f64| ExperimentEntry {
        name: self::name(name),
        salt: "00".repeat(16),
        seed: 1,
        arms: vec![],
        window: 32,
        epsilon: Epsilon::new(epsilon).unwrap(),
    };
    let running = |experiments| OPERATOR(2).sign(&Catalog { experiments, ..catalog(6) });
    let fitting = vec![experiment("a", 1.0), experiment("b", 3.0)];
    client().accept(&running(fitting.clone()), NOW).unwrap();
    let greedy = [fitting, vec![experiment("c", 0.1)]].concat();
    assert_eq!(refusal(&mut client(), &running(greedy), NOW), "ledger_overspent");
}

#[test]
fn damaged_documents_are_refused() {
    let good = OPERATOR(2).sign(&catalog(6));
    for signature in ["", "zz", &"0".repeat(128)] {
        let damaged = SignedCatalog { signature: signature.to_owned(), ..good.clone() };
        assert_eq!(refusal(&mut client(), &damaged, NOW), "signature_invalid");
    }
    let other = Catalog { format: 2, ..catalog(6) };
    assert_eq!(refusal(&mut client(), &OPERATOR(2).sign(&other), NOW), "catalog_invalid");
}
