//! Training in slices: the same as in one go, over as many visits as it takes, and never on with what is stale.

use super::*;

const OPTIONS: TrainOptions = TrainOptions { epochs: Some(6), patches: None, seed: 5 };

/// One step, by the clock of the memory port.
const SLICE_MS: f64 = 0.03;

fn slice(
    client: &Client<MemoryPort>,
    steps: &mut Vec<usize>,
) -> Option<crate::report::TrainReport> {
    let seen = RefCell::new(std::mem::take(steps));
    let progress = |p: &crate::report::TrainProgress| seen.borrow_mut().push(p.step);
    let done = block_on(client.train_slice(&OPTIONS, SLICE_MS, &progress, &|| false));
    *steps = seen.into_inner();
    done.unwrap()
}

fn taught(seed: u64) -> (MemoryPort, Rc<RefCell<Server>>) {
    let server = Server::new();
    let port = device(&server, seed);
    teach(&open(&port), 40);
    (port, server)
}

fn stored(port: &MemoryPort, end: &str) -> Option<Vec<u8>> {
    port.stored().iter().find(|(key, _)| key.ends_with(end)).map(|(_, bytes)| bytes.clone())
}

#[test]
fn slices_over_several_visits_end_where_one_go_does() {
    let (whole, _) = taught(1);
    let report = block_on(open(&whole).train(&OPTIONS, &|_| {}, &|| false)).unwrap();
    let (port, _) = taught(2);
    let (mut steps, mut visits) = (Vec::new(), 0);
    let sliced = loop {
        // Each visit takes two slices and is then closed, whatever it holds in memory.
        let client = open(&port);
        visits += 1;
        if let Some(report) = (0..2).find_map(|_| slice(&client, &mut steps)) {
            break report;
        }
        let unfinished = block_on(client.unfinished()).unwrap().unwrap();
        assert_eq!((&unfinished.options, unfinished.steps), (&OPTIONS, report.steps));
        assert_eq!(Some(&unfinished.step), steps.last());
    };
    assert!(visits > 3, "{visits}");
    assert_eq!(steps, (1..=report.steps).collect::<Vec<_>>());
    assert_eq!((&sliced.curve, sliced.personal), (&report.curve, report.personal));
    let weights = stored(&whole, "personal/personal-style");
    assert!(weights.is_some() && weights == stored(&port, "personal/personal-style"));
    assert_eq!(stored(&port, "/training"), None);
    assert_eq!(block_on(open(&port).unfinished()).unwrap(), None);
}

#[test]
fn what_is_stale_or_damaged_is_discarded() {
    let (port, server) = taught(1);
    let begun = || {
        let mut steps = Vec::new();
        assert!(slice(&open(&port), &mut steps).is_none());
        steps[0]
    };
    assert_eq!(begun(), 1);
    assert!(begun() > 1, "the second visit goes on");
    // Another example.
    block_on(open(&port).learn(&picture(99, 0.2), &Answer::Class(7))).unwrap();
    assert_eq!(begun(), 1);
    assert!(begun() > 1);
    // Another version of the patch.
    server.borrow_mut().publish(2, 0.01);
    assert_eq!(begun(), 1);
    assert!(begun() > 1);
    // A turned bit.
    port.stored()
        .iter_mut()
        .filter(|(key, _)| key.ends_with("/training"))
        .for_each(|(_, b)| b[70] ^= 1);
    assert_eq!(begun(), 1);
    // Another seed.
    let other = TrainOptions { seed: 6, ..OPTIONS };
    let first = Cell::new(0);
    let note = |p: &crate::report::TrainProgress| {
        first.set(if first.get() == 0 { p.step } else { first.get() })
    };
    block_on(open(&port).train_slice(&other, SLICE_MS, &note, &|| false)).unwrap();
    assert_eq!(first.get(), 1);
}

#[test]
fn giving_up_and_forgetting_leave_nothing() {
    let (port, _) = taught(1);
    let client = open(&port);
    assert!(slice(&client, &mut Vec::new()).is_none());
    assert!(stored(&port, "/training").is_some());
    // Slow enough to look up between two steps.
    port.tick_ms.set(10.0);
    let cancelled = block_on(client.train_slice(&OPTIONS, f64::INFINITY, &|_| {}, &|| true));
    assert!(cancelled.unwrap_err().is(Code::Aborted));
    assert_eq!(stored(&port, "/training"), None);
    port.tick_ms.set(0.01);
    for leave in [0, 1] {
        assert!(slice(&client, &mut Vec::new()).is_none());
        match leave {
            0 => block_on(client.abandon()).unwrap(),
            _ => block_on(client.forget()).unwrap(),
        }
        assert_eq!(stored(&port, "/training"), None);
    }
}

#[test]
fn a_full_device_trains_and_uses_the_weights_from_memory() {
    let (port, _) = taught(1);
    let client = open(&port);
    port.full.set(true);
    let outcome = loop {
        match block_on(client.train_slice(&OPTIONS, SLICE_MS, &|_| {}, &|| false)) {
            Ok(None) => {}
            outcome => break outcome,
        }
    };
    let problem = outcome.unwrap_err();
    assert!(problem.is(Code::StorageFull) && problem.hint().unwrap().contains("memory"));
    assert!(client.live().slot(&name("personal-style")).unwrap().personal.is_some());
}
