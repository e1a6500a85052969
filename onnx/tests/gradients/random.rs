//! The gradients of hundreds of random graphs against central differences.

use std::collections::BTreeSet;

use backstitch_onnx::autodiff::rules;

use super::case::Step;
use super::draft;

const GRAPHS: usize = 640;

/// `BACKSTITCH_GRADIENT_SEED=17` runs one graph and prints it.
#[test]
fn random_graphs_agree_with_central_differences() {
    let only = std::env::var("BACKSTITCH_GRADIENT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds: Vec<usize> = only.map_or_else(|| (0..GRAPHS).collect(), |seed| vec![seed]);
    let mut failures = Vec::new();
    let (mut narrow, mut largest) = (0, 0f64);
    for seed in seeds {
        let case = draft::case(seed);
        if only.is_some() {
            println!("{} | {} | {}", case.weights, case.graph, case.opset);
        }
        match case.check() {
            Ok(report) if report.step.size == Step::NARROW.size => {
                narrow += 1;
                largest = largest.max(report.error);
            }
            Ok(_) => {}
            Err(failure) => failures.push(failure),
        }
    }
    println!("{narrow} graphs by the narrow step, largest relative error {largest:.1e}");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_random_graphs_are_varied() {
    let graphs: Vec<String> = (0..GRAPHS).map(|seed| draft::case(seed).graph).collect();
    assert_eq!(graphs.iter().collect::<BTreeSet<_>>().len(), GRAPHS);
    let text = graphs.concat();
    let used = rules().iter().filter(|rule| text.contains(&format!(" {}(", rule.op))).count();
    assert!(used >= 75, "{used} of {} rules", rules().len());
}
