//! The one error of this crate: what was wrong, where, and what to change.

use std::fmt;

/// Stable machine-readable codes. They travel unchanged to JavaScript, HTTP problems, logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The bytes are no ONNX model, or break its rules.
    ModelInvalid,
    /// The model exceeds a limit of size, count, rank or dimension.
    ModelTooLarge,
    /// The opset, data type or feature is outside what is supported.
    ModelUnsupported,
    /// A tensor name that the model does not have.
    UnknownTensor,
    /// The manifest of a patch is malformed.
    ManifestInvalid,
    /// The patch does not fit its primary: name, dtype, shape, cycle or a replace that is not legal.
    PatchMismatch,
    /// A weight is not finite.
    WeightsNotFinite,
    /// No gradient rule for an operator on the path.
    GradientUnsupported,
    /// A trainable tensor does not reach the loss.
    GradientUnreachable,
    /// An input tensor is missing, or has the wrong dtype or shape.
    InputMismatch,
    /// An input holds NaN or infinity.
    InputNotFinite,
    /// The engine could not compile or run the graph.
    EngineFailed,
}

impl Code {
    /// The code as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ModelInvalid => "model_invalid",
            Self::ModelTooLarge => "model_too_large",
            Self::ModelUnsupported => "model_unsupported",
            Self::UnknownTensor => "unknown_tensor",
            Self::ManifestInvalid => "manifest_invalid",
            Self::PatchMismatch => "patch_mismatch",
            Self::WeightsNotFinite => "weights_not_finite",
            Self::GradientUnsupported => "gradient_unsupported",
            Self::GradientUnreachable => "gradient_unreachable",
            Self::InputMismatch => "input_mismatch",
            Self::InputNotFinite => "input_not_finite",
            Self::EngineFailed => "engine_failed",
        }
    }
}

/// An error with a stable [`Code`], a message that names node, value and limit, and a hint what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Code,
    message: String,
    hint: Option<String>,
}

impl Error {
    /// An error that says what was wrong.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Adds what the caller can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prefixes the message with where it happened, such as a file or patch name.
    #[must_use]
    pub fn context(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What was wrong, without the hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
