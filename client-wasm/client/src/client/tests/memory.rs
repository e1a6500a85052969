//! A client with little memory: answers are the same, what was not used for longest makes room.

use backstitch_protocol::id::VersionId;

use super::*;
use crate::report::RunResult;

fn open_within(port: &MemoryPort, limit_bytes: u64) -> Client<MemoryPort> {
    let workshop = Arc::new(Workshop::within(limit_bytes));
    let options = Options { workshop, ..Options::default() };
    block_on(Client::open(port.clone(), URL, options, &|_| {}, &|| false)).unwrap()
}

#[test]
fn a_limit_changes_no_answer_and_is_kept() {
    let server = Server::new();
    let roomy = open_within(&device(&server, 1), u64::MAX);
    let both = || Choice::Named(vec![name("noise-reduction"), name("low-contrast")]);
    let answers = |client: &Client<MemoryPort>| -> Vec<(Vec<f32>, VersionId)> {
        let mut answers = Vec::new();
        for seed in 0..3 {
            for choice in [Choice::None, Choice::Auto, both()] {
                let RunResult { output, version, .. } = run(client, &picture(seed, 0.7), choice);
                answers.push((output, version));
            }
        }
        answers
    };
    let expected = answers(&roomy);
    let whole = roomy.memory();
    assert_eq!(whole.dropped, 0);
    for limit in [whole.held_bytes * 3 / 4, whole.held_bytes / 2, 0] {
        let tight = open_within(&device(&server, 2), limit);
        assert_eq!(answers(&tight), expected, "within {limit} bytes");
        let memory = tight.memory();
        assert_eq!(memory.limit_bytes, Some(limit));
        assert!(memory.dropped > 0, "{memory:?} of {whole:?}");
        assert!(memory.held_bytes <= limit || memory.held == 1, "{memory:?}");
    }
}

#[test]
fn a_run_that_has_begun_ends_on_what_it_began_with_whatever_is_dropped() {
    let server = Server::new();
    let tight = open_within(&device(&server, 1), 0);
    let options = RunOptions { choice: Choice::Auto, ..RunOptions::default() };
    let input = picture(4, 0.7);
    let expected = run(&tight, &input, Choice::Auto);
    let begun = tight.begin(&input).unwrap();
    server.borrow_mut().publish(2, 0.01);
    assert!(block_on(tight.refresh()).unwrap().changed);
    let ended = block_on(tight.finish(begun, None, &options, &|| false)).unwrap();
    assert_eq!((ended.output, ended.version), (expected.output, expected.version));
}

#[test]
fn training_works_with_little_memory() {
    let tight = open_within(&device(&Server::new(), 1), 0);
    teach(&tight, 12);
    assert!(train(&tight).improved);
    let roomy = open(&device(&Server::new(), 1));
    teach(&roomy, 12);
    train(&roomy);
    let answer = |client: &Client<MemoryPort>| run(client, &picture(50, 0.2), Choice::Auto).output;
    assert_eq!(answer(&tight), answer(&roomy));
}
