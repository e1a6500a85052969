//! The small documents of the protocol: token requests and answers, reports, certificates, problems and names. Each is read
//! or refused in words, no made-up answer becomes a token, and what an issuer gives out it also recognises.
#![no_main]

use arbitrary::Arbitrary;
use backstitch_client::catalog::success;
use backstitch_client::port::Response;
use backstitch_protocol::contribution::Nullifier;
use backstitch_protocol::experiment::Report;
use backstitch_protocol::id::Name;
use backstitch_protocol::token::{
    Blinding, Issuer, Token, TokenAnswer, TokenKey, TokenRequest, TokenScope,
};
use backstitch_protocol::trust::{Certificate, Trust};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Wire<'a> {
    json: &'a [u8],
    status: u16,
    elements: [[u8; 32]; 4],
    secret: [u8; 32],
    round: u64,
}

fuzz_target!(|wire: Wire<'_>| {
    documents(&wire);
    elements(&wire);
    honest(&wire);
});

fn documents(wire: &Wire<'_>) {
    let _ = serde_json::from_slice::<TokenRequest>(wire.json);
    let _ = serde_json::from_slice::<TokenAnswer>(wire.json);
    let _ = serde_json::from_slice::<Report>(wire.json).map(|report| report.nullifier());
    let _ = serde_json::from_slice::<Certificate>(wire.json).map(|c| c.verify());
    let _ = serde_json::from_slice::<Trust>(wire.json);
    let body = wire.json.to_vec();
    let _ = success(Response { status: wire.status, body, ..Response::default() }, "a thing");
    if let Ok(text) = std::str::from_utf8(wire.json) {
        let _ = Token::try_from(text.to_owned());
        let _ = Name::new(text);
    }
}

/// Group elements, keys and proofs that somebody made up.
fn elements(Wire { elements: [blinded, evaluated, first, second], secret, round, .. }: &Wire<'_>) {
    let (library, task) = names();
    let scope = TokenScope { library: &library, task: &task, round: *round };
    let issuer = Issuer::from_seed(secret).expect("a key");
    if let Ok(blinded) = hex::encode(blinded).try_into() {
        let _ = issuer.evaluate(&blinded, &scope, *first);
    }
    let text = serde_json::json!({
        "evaluated": hex::encode(evaluated), "proof": hex::encode([*first, *second].concat()),
    });
    let answer: TokenAnswer = serde_json::from_value(text).expect("an answer by its form");
    let blinding = Blinding::derive(secret, &task, *round).expect("a blinding");
    assert!(blinding.finish(&answer, &issuer.public_key(), &scope).is_err(), "a forged proof");
    if let Ok(key) = TokenKey::try_from(hex::encode(second)) {
        assert!(blinding.finish(&answer, &key, &scope).is_err(), "a forged proof");
    }
    if let Ok(token) = Token::try_from(hex::encode(first)) {
        let nullifier = Nullifier::derive(secret, &task, *round);
        assert!(!issuer.accepts(&nullifier, &scope, &token), "a guessed token");
    }
}

fn honest(Wire { secret, round, elements, .. }: &Wire<'_>) {
    let (library, task) = names();
    let scope = TokenScope { library: &library, task: &task, round: *round };
    let issuer = Issuer::from_seed(&elements[0]).expect("a key");
    let blinding = Blinding::derive(secret, &task, *round).expect("a blinding");
    let answer = issuer.evaluate(blinding.blinded(), &scope, elements[1]).expect("an evaluation");
    let token = blinding.finish(&answer, &issuer.public_key(), &scope).expect("a token");
    let nullifier = Nullifier::derive(secret, &task, *round);
    assert!(issuer.accepts(&nullifier, &scope, &token), "an honest token");
    let later = TokenScope { round: round.wrapping_add(1), ..scope };
    assert!(!issuer.accepts(&nullifier, &later, &token), "a token of another round");
}

fn names() -> (Name, Name) {
    (Name::new("fashion").expect("a name"), Name::new("style").expect("a name"))
}
