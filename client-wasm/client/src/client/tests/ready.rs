//! Patches are compiled when they are first needed, and one that cannot be is not chosen.

use super::*;
use crate::library::Version;
use crate::residence::Residence;

/// The client, with a patch of its library that the engine cannot compile.
fn open_with_fault(patch: &str) -> Client<MemoryPort> {
    let client = open(&device(&Server::new(), 1));
    let live = client.live();
    let mut slots = live.slots.clone();
    let slot = slots.iter_mut().find(|slot| slot.shared.name.as_str() == patch).unwrap();
    let fault = Problem::new(Code::Internal, "no kernel for it");
    let compiled = Arc::new(slot.shared.compiled.failing(&Arc::new(Residence::default()), fault));
    slot.shared = Arc::new(Version { compiled, ..(*slot.shared).clone() });
    let library = live.library.clone();
    client.live.replace(Arc::new(Adapted { library, slots }));
    client
}

#[test]
fn opening_compiles_no_patch_and_a_run_those_that_it_stitches() {
    let workshop = Arc::new(Workshop::default());
    let options = Options { workshop, ..Options::default() };
    let port = device(&Server::new(), 1);
    let client = block_on(Client::open(port, URL, options, &|_| {}, &|| false)).unwrap();
    let held = || client.memory().held;
    let (segments, versions) =
        (client.library().session.segments().len(), client.live().slots.len());
    let opened = held();
    // Segments, and the weights of every patch.
    assert_eq!(opened, segments + versions);
    let stitched = run(&client, &picture(1, 0.9), Choice::Named(vec![name("noise-reduction")]));
    assert_eq!(stitched.patches.len(), 1);
    let once = held();
    assert!(once > opened);
    let again = run(&client, &picture(2, 0.9), Choice::Named(vec![name("noise-reduction")]));
    assert_eq!(held(), once);
    // What that took stands by itself, once.
    let compiled = [&stitched, &again]
        .map(|result| result.cost.stages.iter().filter(|stage| stage.name == "compile").count());
    assert_eq!(compiled, [1, 0]);
}

#[test]
fn a_patch_that_cannot_be_compiled_is_not_chosen_and_says_why() {
    let noisy = picture(1, 0.9);
    let whole = run(&open(&device(&Server::new(), 1)), &noisy, Choice::Auto);
    let chosen = whole.patches.first().unwrap().name.to_string();
    let client = open_with_fault(&chosen);
    let result = run(&client, &noisy, Choice::Auto);
    assert!(result.patches.iter().all(|used| used.name.as_str() != chosen));
    let considered = result.candidates.iter().find(|c| c.name.as_str() == chosen).unwrap();
    assert_eq!(considered.reason_code, ReasonCode::Broken);
    assert_eq!(considered.reason, "It does not run here: no kernel for it.");
    // Asked for by name, it fails; warming leaves it out and ends.
    let named = RunOptions { choice: Choice::Named(vec![name(&chosen)]), ..RunOptions::default() };
    assert!(block_on(client.run(&noisy, &named, &|| false)).unwrap_err().is(Code::Internal));
    assert!((0..100).any(|_| !client.warm().unwrap()));
}
