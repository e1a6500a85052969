//! The frames of a video: what looks the same is not measured again, and every frame is answered.

use super::*;
use crate::analysis::FeatureVector;

fn push(
    client: &Client<MemoryPort>,
    stream: &mut Stream,
    input: &Input,
) -> crate::report::RunResult {
    let answers = block_on(client.push(stream, input, &RunOptions::default(), &|| false));
    let [answer] = answers.unwrap().try_into().unwrap();
    answer
}

/// What the analysis measured; probes look at every frame.
fn measured(answer: &crate::report::RunResult) -> FeatureVector {
    let kept = answer.features.0.iter().filter(|(name, _)| !name.starts_with("probe."));
    FeatureVector(kept.map(|(name, value)| (name.clone(), *value)).collect())
}

#[test]
fn frames_keep_their_features_while_they_look_the_same() {
    let client = open(&device(&Server::new(), 1));
    let mut stream = client.stream(1).unwrap();
    let first = push(&client, &mut stream, &picture(1, 0.04));
    assert_eq!(measured(&first), client.analyse(&picture(1, 0.04)).unwrap());
    // Another draw of the same noise: the answer is the frame's own, the features are those of the first.
    let next = push(&client, &mut stream, &picture(2, 0.04));
    assert_eq!(measured(&next), measured(&first));
    assert_ne!(next.output, first.output);
    // Another scene.
    let noisy = push(&client, &mut stream, &picture(3, 0.9));
    assert_eq!(measured(&noisy), client.analyse(&picture(3, 0.9)).unwrap());
    // What stays the same is measured anew from time to time.
    let anew = (0..40).filter(|seed| {
        let input = picture(100 + seed, 0.04);
        measured(&push(&client, &mut stream, &input)) == client.analyse(&input).unwrap()
    });
    assert_eq!(anew.count(), 3);
    let refused = block_on(client.push(
        &mut stream,
        &Input::tensor(vec![3], vec![0.0; 3]).unwrap(),
        &RunOptions::default(),
        &|| false,
    ));
    assert!(refused.unwrap_err().is(Code::InputInvalid));
}
