//! What `differentiate` refuses, and how it says so.

use backstitch_onnx::autodiff::{Loss, Objective, differentiate};
use backstitch_onnx::{Code, DType, Dims, Error, Model};

use super::case::Case;

fn refuse(weights: &str, graph: &str, output: &str, trainable: &[&str]) -> Error {
    let (model, _) = Case::new("errors", weights, graph).model(DType::F32);
    attempt(&model, output, trainable).unwrap_err()
}

fn attempt(model: &Model, output: &str, trainable: &[&str]) -> Result<Model, Error> {
    let objective = Objective { loss: Loss::MeanSquaredError, output, trainable };
    differentiate(model, &objective, &Dims::new())
}

#[test]
fn an_operator_without_a_rule_is_named() {
    let error = refuse("a:2x3", "h = Hardmax(a); y = Mul(h, a)", "y", &["a"]);
    assert_eq!(error.code(), Code::GradientUnsupported);
    assert!(error.message().contains("Hardmax"), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn an_operator_without_a_rule_beside_the_path_does_not_matter() {
    let (model, _) =
        Case::new("errors", "a:2x3 b:2x3", "h = Hardmax(b); y = Mul(h, a)").model(DType::F32);
    attempt(&model, "y", &["a"]).unwrap();
}

#[test]
fn a_trainable_that_does_not_reach_the_loss_is_named() {
    for graph in ["y = Relu(a)", "h = Floor(b); y = Add(a, h)", "s = Shape(b); y = Reshape(a, s)"] {
        let error = refuse("a:2x3 b:2x3", graph, "y", &["a", "b"]);
        assert_eq!(error.code(), Code::GradientUnreachable, "{graph}");
        assert!(error.message().contains("`b`"), "{error}");
    }
}

#[test]
fn unknown_names_are_refused() {
    assert_eq!(refuse("a:2", "y = Relu(a)", "z", &["a"]).code(), Code::UnknownTensor);
    assert_eq!(refuse("a:2", "y = Relu(a)", "y", &["b"]).code(), Code::UnknownTensor);
    assert_eq!(refuse("a:2", "y = Relu(a)", "y", &[]).code(), Code::UnknownTensor);
    assert_eq!(refuse("a:2", "y = Relu(a)", "y", &["a", "a"]).code(), Code::ModelInvalid);
}

#[test]
fn integers_cannot_be_trained() {
    let (model, _) = Case::new("errors", "a:2x3", "y = Reshape(a, [3,2])").model(DType::F32);
    let shape =
        model.graph.initializers.keys().find(|name| name.starts_with("const")).unwrap().clone();
    assert_eq!(attempt(&model, "y", &[&shape]).unwrap_err().code(), Code::GradientUnsupported);
}

#[test]
fn an_integer_output_has_no_loss() {
    assert_eq!(
        refuse("a:2x3", "s = Relu(a); y = ArgMax(s)", "y", &["a"]).code(),
        Code::GradientUnsupported
    );
}

#[test]
fn inner_tensors_give_way_to_the_names_of_the_interface() {
    let graph = "loss = Relu(a); target = Mul(loss, a); y = Add(target, loss)";
    let (model, _) = Case::new("errors", "a:2x3", graph).model(DType::F32);
    for output in ["y", "loss", "target"] {
        let training = attempt(&model, output, &["a"]).unwrap();
        let inputs: Vec<&str> = training.graph.inputs.iter().map(|i| i.name.as_str()).collect();
        let outputs: Vec<&str> = training.graph.outputs.iter().map(|o| o.name.as_str()).collect();
        assert_eq!((inputs, outputs), (vec!["target", "a"], vec!["loss", "grad.a"]));
    }
}

#[test]
fn a_trainable_named_like_the_interface_is_refused() {
    let (model, _) = Case::new("errors", "target:2x3", "y = Relu(target)").model(DType::F32);
    assert_eq!(attempt(&model, "y", &["target"]).unwrap_err().code(), Code::ModelInvalid);
}

#[test]
fn a_scalar_has_no_classes() {
    let (model, _) = Case::new("errors", "a:2x3", "y = ReduceSum(a) keepdims=0").model(DType::F32);
    for loss in [Loss::SoftmaxCrossEntropy, Loss::Entropy] {
        let objective = Objective { loss, output: "y", trainable: &["a"] };
        let error = differentiate(&model, &objective, &Dims::new()).unwrap_err();
        assert_eq!(error.code(), Code::GradientUnsupported);
        assert!(error.message().contains("`y`"), "{error}");
    }
}
