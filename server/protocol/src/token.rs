//! Anonymous tokens: one contribution of one profile to one release, unlinkable to the profile that drew it.
//!
//! A partially oblivious PRF (RFC 9497, POPRF with ristretto255-SHA512). The device blinds its [`Nullifier`]; the
//! server evaluates it under its key and the public [`TokenScope`], and proves that it used the key that stands in
//! the signed catalog; the device unblinds. At redemption the server sees nullifier and token for the first time
//! and checks one by the other: it learns that *some* enrolled profile drew it for this release, not which.

use std::fmt;

use backstitch_onnx::Digest;
use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha512};
use voprf::{
    BlindedElement, EvaluationElement, Group as _, PoprfClient, PoprfServer, Proof, Ristretto255,
};

use crate::contribution::Nullifier;
use crate::id::Name;
use crate::problem::{Code, Problem};

/// What a token is good for; the public input of the PRF, so that a token of one release is worth nothing in another.
#[derive(Clone, Copy, Debug)]
pub struct TokenScope<'a> {
    /// The library.
    pub library: &'a Name,
    /// The task within the library.
    pub task: &'a Name,
    /// The release, counted from 1: the token's epoch.
    pub round: u64,
}

impl TokenScope<'_> {
    /// Names hold no dot and no zero byte, so different scopes have different bytes.
    fn info(&self) -> Vec<u8> {
        let mut info = b"backstitch token v1\0".to_vec();
        info.extend_from_slice(format!("{}.{}\0", self.library, self.task).as_bytes());
        info.extend_from_slice(&self.round.to_le_bytes());
        info
    }
}

macro_rules! hex_bytes {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// In hexadecimal digits.
            pub fn hex(&self) -> String {
                hex::encode(self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Problem;
            fn try_from(text: String) -> Result<Self, Problem> {
                let mut bytes = [0; $bytes];
                hex::decode_to_slice(&text, &mut bytes).map_err(|_| {
                    Problem::new(
                        Code::RequestInvalid,
                        concat!(stringify!($name), " is not ", stringify!($bytes), " bytes in hexadecimal"),
                    )
                })?;
                Ok(Self(bytes))
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.hex()
            }
        }
    };
}

hex_bytes! {
    /// The credential that a profile enrols with: a one-way image of the device's secret. Whoever has it can draw
    /// the profile's tokens, so it is shown to the issuer alone and never together with a contribution.
    Profile, 32
}
hex_bytes! {
    /// The server's public key for tokens, as the signed catalog states it.
    TokenKey, 32
}
hex_bytes! {
    /// What the device sends in place of its nullifier.
    Blinded, 32
}
hex_bytes! {
    /// The evaluated blinded element.
    Evaluated, 32
}
hex_bytes! {
    /// Proof that the catalog's key was used (a batched DLEQ proof, RFC 9497 §2.2).
    KeyProof, 64
}
hex_bytes! {
    /// A token: the first 32 bytes of the PRF's output. A secret until it is redeemed.
    Token, 32
}

/// Secrets do not show in logs, not even by accident.
macro_rules! hidden {
    ($($name:ident),*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        })*
    };
}
hidden!(Profile, Blinded, Evaluated, KeyProof, Token);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl Profile {
    /// The profile of a device's secret.
    pub fn derive(secret: &[u8; 32]) -> Self {
        Self(*Digest::of(&[b"backstitch profile v1\0".as_slice(), secret].concat()).as_bytes())
    }

    /// What a server keeps of it, so that its store is of no use to a thief.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

/// What a device asks the issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// `<library>.<task>`.
    pub task: String,
    /// The open round.
    pub round: u64,
    /// Who asks.
    pub profile: Profile,
    /// What is to be evaluated.
    pub blinded: Blinded,
    /// The site's word that a person stands behind this profile, where enrolment asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voucher: Option<String>,
}

/// What the issuer answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenAnswer {
    /// The evaluated element.
    pub evaluated: Evaluated,
    /// Proof that the catalog's key was used.
    pub proof: KeyProof,
}

/// The device's half: a nullifier under a blind.
pub struct Blinding {
    nullifier: Nullifier,
    client: PoprfClient<Ristretto255>,
    blinded: Blinded,
}

impl Blinding {
    /// Blinds this device's nullifier. The blind is derived from the device's secret, as the nullifier is, so a
    /// retry after a lost answer or a crash asks for the very same element and nothing has to be kept meanwhile.
    pub fn derive(secret: &[u8; 32], task: &Name, round: u64) -> Result<Self, Problem> {
        let nullifier = Nullifier::derive(secret, task, round);
        let label = [b"backstitch token blind v1\0".as_slice(), secret, nullifier.as_bytes()];
        let mut stream = Expanded::of(*Digest::of(&label.concat()).as_bytes());
        let blind = PoprfClient::blind(nullifier.as_bytes(), &mut stream).map_err(broken)?;
        let blinded = Blinded(blind.message.serialize().into());
        Ok(Self { nullifier, client: blind.state, blinded })
    }

    /// What is sent.
    pub fn blinded(&self) -> &Blinded {
        &self.blinded
    }

    /// The token, if the proof shows that the catalog's key was used for this very scope: a server that gave each
    /// profile a key of its own could tell them apart at redemption.
    pub fn finish(
        &self,
        answer: &TokenAnswer,
        key: &TokenKey,
        scope: &TokenScope<'_>,
    ) -> Result<Token, Problem> {
        let invalid = |e: voprf::Error| {
            Problem::new(Code::SignatureInvalid, format!("the token's proof does not hold: {e}"))
                .with_hint("the server did not use the key that its signed catalog states")
        };
        let public = <Ristretto255 as voprf::Group>::deserialize_elem(&key.0).map_err(invalid)?;
        let evaluated = EvaluationElement::deserialize(&answer.evaluated.0).map_err(invalid)?;
        let proof = Proof::deserialize(&answer.proof.0).map_err(invalid)?;
        let info = scope.info();
        let output = self
            .client
            .finalize(self.nullifier.as_bytes(), &evaluated, &proof, public, Some(&info))
            .map_err(invalid)?;
        Ok(shortened(&output))
    }
}

/// The server's half: the key that evaluates and recognises tokens.
pub struct Issuer(PoprfServer<Ristretto255>);

impl Issuer {
    /// The issuer whose key is derived from a secret seed (RFC 9497, DeriveKeyPair).
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, Problem> {
        PoprfServer::new_from_seed(seed, b"backstitch tokens v1").map(Self).map_err(broken)
    }

    /// The key that clients verify against.
    pub fn public_key(&self) -> TokenKey {
        TokenKey(Ristretto255::serialize_elem(self.0.get_public_key()).into())
    }

    /// Evaluates a blinded element. `entropy` is fresh from the system: the proof must never reuse it.
    pub fn evaluate(
        &self,
        blinded: &Blinded,
        scope: &TokenScope<'_>,
        entropy: [u8; 32],
    ) -> Result<TokenAnswer, Problem> {
        let element = BlindedElement::deserialize(&blinded.0).map_err(|_| {
            Problem::new(Code::RequestInvalid, "`blinded` is no element of the group")
        })?;
        let evaluated = self
            .0
            .blind_evaluate(&mut Expanded::of(entropy), &element, Some(&scope.info()))
            .map_err(broken)?;
        Ok(TokenAnswer {
            evaluated: Evaluated(evaluated.message.serialize().into()),
            proof: KeyProof(evaluated.proof.serialize().into()),
        })
    }

    /// Whether this is the token of this nullifier in this scope.
    pub fn accepts(&self, nullifier: &Nullifier, scope: &TokenScope<'_>, token: &Token) -> bool {
        let expected = self.0.evaluate(nullifier.as_bytes(), Some(&scope.info()));
        // Digests of the secrets are compared, so the time tells nothing about them.
        expected.is_ok_and(|output| Digest::of(&shortened(&output).0) == Digest::of(&token.0))
    }
}

fn shortened(output: &[u8]) -> Token {
    let mut token = [0; 32];
    token.copy_from_slice(&output[..32]);
    Token(token)
}

fn broken(error: voprf::Error) -> Problem {
    Problem::new(Code::Internal, format!("tokens: {error}"))
}

/// Thirty-two secret bytes as the generator that `voprf` asks for: SHA-512 over the bytes and a counter. This crate
/// has no randomness of its own, the caller brings it.
struct Expanded {
    seed: [u8; 32],
    blocks: u64,
}

impl Expanded {
    fn of(seed: [u8; 32]) -> Self {
        Self { seed, blocks: 0 }
    }
}

impl RngCore for Expanded {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(64) {
            let mut hash = Sha512::new();
            hash.update(b"backstitch expand v1\0");
            hash.update(self.seed);
            hash.update(self.blocks.to_le_bytes());
            self.blocks += 1;
            chunk.copy_from_slice(&hash.finalize()[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Expanded {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn issuer(seed: u8) -> Issuer {
        Issuer::from_seed(&[seed; 32]).unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_nullifier_task_and_round_alone() {
        let (library, task, other) = (name("fashion"), name("style"), name("other"));
        let scope = |task, round| TokenScope { library: &library, task, round };
        let issuer = issuer(1);
        let blinding = Blinding::derive(&[7; 32], &task, 3).unwrap();
        let answer = issuer.evaluate(blinding.blinded(), &scope(&task, 3), [9; 32]).unwrap();
        let token = blinding.finish(&answer, &issuer.public_key(), &scope(&task, 3)).unwrap();
        let nullifier = Nullifier::derive(&[7; 32], &task, 3);
        assert!(issuer.accepts(&nullifier, &scope(&task, 3), &token));
        assert!(!issuer.accepts(&nullifier, &scope(&task, 4), &token));
        assert!(!issuer.accepts(&nullifier, &scope(&other, 3), &token));
        assert!(!issuer.accepts(&Nullifier::derive(&[8; 32], &task, 3), &scope(&task, 3), &token));
        assert!(!self::issuer(2).accepts(&nullifier, &scope(&task, 3), &token));
        // A retry asks for the same element, and another proof of it gives the same token.
        let again = Blinding::derive(&[7; 32], &task, 3).unwrap();
        assert_eq!(again.blinded(), blinding.blinded());
        let answer = issuer.evaluate(again.blinded(), &scope(&task, 3), [1; 32]).unwrap();
        assert_eq!(again.finish(&answer, &issuer.public_key(), &scope(&task, 3)).unwrap(), token);
    }

    #[test]
    fn another_key_than_the_catalogs_is_noticed() {
        let (library, task) = (name("fashion"), name("style"));
        let scope = TokenScope { library: &library, task: &task, round: 1 };
        let blinding = Blinding::derive(&[7; 32], &task, 1).unwrap();
        let (own, other) = (issuer(1), issuer(2));
        let marked = other.evaluate(blinding.blinded(), &scope, [9; 32]).unwrap();
        let refused = blinding.finish(&marked, &own.public_key(), &scope).unwrap_err();
        assert!(refused.is(Code::SignatureInvalid));
        // Nor may the server evaluate for another round than the one that was asked for.
        let later = TokenScope { round: 2, ..scope };
        let shifted = own.evaluate(blinding.blinded(), &later, [9; 32]).unwrap();
        assert!(blinding.finish(&shifted, &own.public_key(), &scope).is_err());
    }

    #[test]
    fn what_the_issuer_sees_is_not_what_the_redeemer_sees() {
        let task = name("style");
        let blinding = Blinding::derive(&[7; 32], &task, 1).unwrap();
        let profile = Profile::derive(&[7; 32]);
        let nullifier = Nullifier::derive(&[7; 32], &task, 1);
        assert_ne!(blinding.blinded().as_bytes(), nullifier.as_bytes());
        assert_ne!(profile.as_bytes(), nullifier.as_bytes());
        assert_eq!(format!("{profile:?} {:?}", blinding.blinded()), "Profile(…) Blinded(…)");
    }

    proptest! {
        #[test]
        fn arbitrary_elements_never_panic(bytes in any::<[u8; 32]>(), proof in any::<[u8; 32]>()) {
            let (library, task) = (name("fashion"), name("style"));
            let scope = TokenScope { library: &library, task: &task, round: 1 };
            let _ = issuer(1).evaluate(&Blinded(bytes), &scope, [0; 32]);
            let answer = TokenAnswer {
                evaluated: Evaluated(bytes),
                proof: KeyProof([bytes, proof].concat().try_into().unwrap()),
            };
            let blinding = Blinding::derive(&[7; 32], &task, 1).unwrap();
            prop_assert!(blinding.finish(&answer, &issuer(1).public_key(), &scope).is_err());
            let text = serde_json::json!({ "task": "a.b", "round": 1, "profile": hex::encode(bytes), "blinded": "zz" });
            prop_assert!(serde_json::from_value::<TokenRequest>(text).is_err());
        }
    }
}
