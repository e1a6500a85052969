//! Draws against a real store, with a clock that tests move.

use backstitch_protocol::id::Name;
use backstitch_protocol::token::{Blinding, Profile};

use super::*;
use crate::registry::{self, Source};
use crate::round::Rounds;
use crate::services::Services;
use crate::tests::{Hands, config, write_library};

struct Bench {
    services: Services,
    hands: Hands,
    folder: tempfile::TempDir,
    runners: tokio::task::JoinSet<()>,
}

impl Bench {
    /// A server whose task asks for tokens, with these terms.
    async fn new(terms: &[(&str, u64)]) -> Self {
        let (folder, hands) = (tempfile::tempdir().unwrap(), Hands::default());
        let config = config(folder.path(), 2);
        write_library(&folder.path().join("library"), 2, |library| {
            library["tasks"][0]["tokens"] = true.into();
            for (key, value) in terms {
                library["tasks"][0][key] = (*value).into();
            }
        });
        std::fs::create_dir_all(&config.data).unwrap();
        let services = crate::server::services(&config, hands.clock()).await.unwrap();
        let source = Source::parse(&config.libraries[0]).unwrap();
        let now = services.clock.now();
        registry::import(&services.store, &services.blobs, &source, now).await.unwrap();
        let mut bench = Self { services, hands, folder, runners: Default::default() };
        Rounds::start(&bench.services, &mut bench.runners).await.unwrap();
        bench
    }

    async fn draw(&self, device: u8, round: u64) -> Result<Token> {
        let task = Name::new("style").unwrap();
        let blinding = Blinding::derive(&[device; 32], &task, round).unwrap();
        let admission = &self.services.admission;
        let answer = admission.issue(&request(device, round, &blinding), network()).await?;
        let library = Name::new("toy").unwrap();
        let scope = TokenScope { library: &library, task: &task, round };
        Ok(blinding.finish(&answer, &admission.key(), &scope).unwrap())
    }

    /// Pretends that the open round was released now and opens the next one.
    async fn next_round(&self, round: u64) {
        let mut writing = self.services.store.write().await.unwrap();
        let now = self.services.clock.now() as i64;
        sqlx::query("UPDATE rounds SET phase = 'published', released_at = ? WHERE round = ?")
            .bind(now)
            .bind(round as i64)
            .execute(&mut *writing)
            .await
            .unwrap();
        sqlx::query("INSERT INTO rounds (library, task, round, phase, base, base_versions, parameters, terms, opened_at) SELECT library, task, round + 1, 'open', base, base_versions, parameters, terms, ? FROM rounds WHERE round = ?")
            .bind(now)
            .bind(round as i64)
            .execute(&mut *writing)
            .await
            .unwrap();
        commit(writing).await.unwrap();
    }
}

fn network() -> Network {
    Network::from(std::net::IpAddr::from([192, 0, 2, 1]))
}

fn request(device: u8, round: u64, blinding: &Blinding) -> TokenRequest {
    TokenRequest {
        task: "toy.style".into(),
        round,
        profile: Profile::derive(&[device; 32]),
        blinded: blinding.blinded().clone(),
        voucher: None,
    }
}

#[tokio::test]
async fn a_profile_draws_one_token_for_a_release() {
    let bench = Bench::new(&[]).await;
    let token = bench.draw(1, 1).await.unwrap();
    let nullifier = Nullifier::derive(&[1; 32], &Name::new("style").unwrap(), 1);
    let task: TaskId = "toy.style".parse().unwrap();
    assert!(bench.services.admission.accepts(&task, 1, &nullifier, &token));
    assert!(!bench.services.admission.accepts(&task, 2, &nullifier, &token));
    assert_eq!(bench.draw(1, 1).await.unwrap(), token, "a lost answer is asked for again");
    // The same profile with another element would hold two tokens of one release.
    let other = Blinding::derive(&[9; 32], &task.name, 1).unwrap();
    let second = bench.services.admission.issue(&request(1, 1, &other), network()).await;
    assert!(second.unwrap_err().is(Code::TokenSpent));
    assert!(bench.draw(1, 2).await.unwrap_err().is(Code::RoundClosed));
    assert!(bench.draw(2, 1).await.is_ok());
    drop(bench.folder);
}

#[tokio::test]
async fn a_token_is_not_good_under_terms_that_it_was_not_drawn_for() {
    let mut bench = Bench::new(&[("max_participations", 4)]).await;
    bench.draw(1, 1).await.unwrap();
    let library = bench.folder.path().join("library");
    write_library(&library, 2, |library| {
        library["tasks"][0]["tokens"] = true.into();
        library["tasks"][0]["max_participations"] = 1.into();
    });
    let source = Source::parse(library.to_str().unwrap()).unwrap();
    let Services { store, blobs, clock, .. } = &bench.services;
    registry::import(store, blobs, &source, clock.now()).await.unwrap();
    Rounds::start(&bench.services, &mut bench.runners).await.unwrap();
    let task: TaskId = "toy.style".parse().unwrap();
    let round = state::newest(&mut bench.services.store.read().await.unwrap(), &task).await;
    let round = round.unwrap().unwrap();
    assert_eq!((round.number, round.terms.max_participations), (2, 1));
    // The round that it was drawn for will never be; so it does not count against its profile either.
    assert!(bench.draw(1, 1).await.unwrap_err().is(Code::RoundClosed));
    bench.draw(1, 2).await.unwrap();
}

#[tokio::test]
async fn k_and_the_separation_hold_whatever_a_device_claims() {
    let bench = Bench::new(&[("min_separation", 2), ("max_participations", 2)]).await;
    bench.draw(1, 1).await.unwrap();
    bench.next_round(1).await;
    assert!(bench.draw(1, 2).await.unwrap_err().detail().contains("2 rounds must lie between"));
    bench.next_round(2).await;
    bench.draw(1, 3).await.unwrap();
    bench.next_round(3).await;
    bench.next_round(4).await;
    assert!(bench.draw(1, 5).await.unwrap_err().detail().contains("2 tokens within 30 days"));
    bench.draw(2, 5).await.unwrap();
    bench.hands.forward_days(31);
    bench.draw(1, 5).await.unwrap();
    // What no longer counts is forgotten.
    let mut reading = bench.services.store.read().await.unwrap();
    let kept: Vec<i64> = sqlx::query_scalar("SELECT round FROM draws ORDER BY round")
        .fetch_all(&mut *reading)
        .await
        .unwrap();
    assert_eq!(kept, [5, 5]);
}
