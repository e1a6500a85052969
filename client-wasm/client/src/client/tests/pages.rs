//! Several pages of one device at once, and a device without room: nothing is lost and nothing counts less.

use super::*;

#[test]
fn a_second_page_sees_and_trains_on_what_the_first_one_taught() {
    let server = Server::new();
    let port = device(&server, 1);
    let (one, two) = (open(&port), open(&port));
    teach(&one, 7);
    block_on(two.learn(&picture(50, 0.2), &Answer::Class(7))).unwrap();
    for client in [&one, &two] {
        assert_eq!(block_on(client.examples()).unwrap().total, 8);
    }
    let report = train(&two);
    assert_eq!(report.examples.training + report.examples.held_out, 8);
}

#[test]
fn two_pages_contribute_once() {
    let server = Server::new();
    let port = device(&server, 1);
    let (one, two) = (open(&port), open(&port));
    teach(&one, 12);
    block_on(one.consent(true)).unwrap();
    let (a, b) = block_on(async { futures::join!(one.contribute(), two.contribute()) });
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(a.contributed != b.contributed, "{a:?} {b:?}");
    assert_eq!(server.borrow().contributions.len(), 1);
    assert_eq!(block_on(two.privacy()).unwrap().tasks[0].participations, 1);
    // What the user withdraws in one page holds in the other.
    server.borrow_mut().publish(2, 0.01);
    block_on(two.consent(false)).unwrap();
    let refused = block_on(one.contribute()).unwrap();
    assert_eq!(refused.reason.unwrap().code, Code::ConsentMissing.as_str());
}

#[test]
fn a_full_device_opens_runs_and_learns_in_memory_but_takes_part_in_nothing() {
    let server = Server::new();
    let port = device(&server, 1);
    port.full.set(true);
    let client = open(&port);
    assert_eq!(run(&client, &picture(1, 0.0), Choice::Auto).output.len(), 10);
    for seed in 0..10 {
        let taught = block_on(client.learn(&picture(seed, 0.2), &Answer::Class(7)));
        assert!(taught.unwrap_err().is(Code::StorageFull));
    }
    let counts = block_on(client.examples()).unwrap();
    assert_eq!((counts.total, counts.unsaved, counts.held_out), (10, 10, 2));
    let refused = block_on(client.contribute()).unwrap();
    assert_eq!(refused.reason.unwrap().code, Code::StorageFull.as_str());
    let trained = block_on(client.train(&TrainOptions::default(), &|_| {}, &|| false));
    assert!(trained.unwrap_err().is(Code::StorageFull));
    assert!(client.live().slot(&name("personal-style")).unwrap().personal.is_some());
    port.full.set(false);
    let saved = block_on(client.learn(&picture(10, 0.2), &Answer::Class(7))).unwrap();
    assert_eq!((saved.examples.total, saved.examples.unsaved), (11, 0));
    assert_eq!(block_on(open(&port).examples()).unwrap().total, 11);
}

#[test]
fn evicted_blobs_are_fetched_again() {
    let server = Server::new();
    let port = device(&server, 1);
    let before = run(&open(&port), &picture(1, 0.0), Choice::Auto).output;
    port.cached().clear();
    let client = open(&port);
    assert_eq!(run(&client, &picture(1, 0.0), Choice::Auto).output, before);
    assert!(!port.cached().is_empty());
}
