//! Everything that can go wrong between client and server, as RFC 9457 problems with stable codes.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:literal, $title:literal;)*) => {
        /// A stable code; it never changes its meaning. The same string stands in HTTP problems, logs,
        /// metrics and the JavaScript `PatchError.code`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// Every code, for documentation and metrics.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The HTTP status that carries it.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// A short sentence for people.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    /// A name breaks the rules of [`crate::id::Name`].
    NameInvalid = "name_invalid", 400, "The name is not valid";
    /// A body or parameter cannot be read.
    RequestInvalid = "request_invalid", 400, "The request is not valid";
    /// No such library, task, experiment, patch or blob.
    NotFound = "not_found", 404, "There is no such thing";
    /// An uploaded body has no or the wrong Content-Length, or an encoding.
    LengthRequired = "length_required", 411, "The upload must state its exact length";
    /// The body is larger than the endpoint takes.
    BodyTooLarge = "body_too_large", 413, "The body is too large";
    /// A contribution is shorter or longer than its task's frame.
    FrameLength = "frame_length", 400, "The contribution has the wrong length";
    /// A contribution's header is not one.
    FrameInvalid = "frame_invalid", 400, "The contribution cannot be read";
    /// A contribution's values exceed the clip norm.
    NormExceeded = "norm_exceeded", 400, "The contribution exceeds the clip norm";
    /// A contribution is based on a version that is no longer current.
    VersionStale = "version_stale", 409, "The contribution is based on another version";
    /// The same nullifier came with other content.
    NullifierReused = "nullifier_reused", 409, "This contribution was already made with other content";
    /// The contribution's token is missing, of another round, or made up.
    TokenInvalid = "token_invalid", 401, "A valid token of this round is needed";
    /// The profile drew its token for this round with another element.
    TokenSpent = "token_spent", 409, "The token of this round was already drawn";
    /// The profile is not enrolled and cannot be.
    EnrolmentRefused = "enrolment_refused", 403, "This profile cannot be enrolled";
    /// The round takes no more contributions.
    RoundClosed = "round_closed", 409, "The round is closed";
    /// The privacy ledger refuses the release.
    BudgetExhausted = "budget_exhausted", 409, "The privacy budget is spent";
    /// The token is missing or wrong.
    Unauthorized = "unauthorized", 401, "A valid token is needed";
    /// Too many requests.
    RateLimited = "rate_limited", 429, "Too many requests";
    /// A state change lost a race; read again and retry.
    Conflict = "conflict", 409, "The state has changed meanwhile";
    /// The server is not ready or shuts down.
    Unavailable = "unavailable", 503, "The server is not available";
    /// The server cannot be reached.
    NetworkFailed = "network_failed", 502, "The server cannot be reached";
    /// The server failed; the cause stands in its log.
    Internal = "internal", 500, "The server failed";
    /// A signature does not match, or the root key is not the pinned one.
    SignatureInvalid = "signature_invalid", 400, "The signature is not valid";
    /// The catalog, or the key that signed it, is past its expiry.
    CatalogExpired = "catalog_expired", 400, "The catalog has expired";
    /// The catalog or its signing key is older than one already seen, or another one of the same number.
    CatalogRollback = "catalog_rollback", 400, "The catalog is older than one already seen";
    /// The ledger in the catalog went backward.
    LedgerRegression = "ledger_regression", 400, "The privacy ledger went backward";
    /// A task takes contributions although its promise is broken or cannot be kept.
    LedgerOverspent = "ledger_overspent", 400, "The privacy budget is overspent";
    /// The catalog or a number in it is out of range.
    CatalogInvalid = "catalog_invalid", 400, "The catalog is not valid";
    /// A blob's bytes do not have the promised digest or length.
    BlobMismatch = "blob_mismatch", 502, "The downloaded bytes are not the promised ones";
    /// A training step produced NaN or infinity.
    TrainingDiverged = "training_diverged", 400, "The training diverged";
    /// A privacy parameter is out of range.
    PrivacyInvalid = "privacy_invalid", 400, "A privacy parameter is not valid";
    /// The user has not consented to contribute.
    ConsentMissing = "consent_missing", 403, "Contributing is switched off";
    /// The device's own ledger allows no participation now.
    ParticipationLimit = "participation_limit", 409, "This device has contributed as often as it may";
    /// The device's ledger cannot be read, so it fails closed.
    LedgerCorrupt = "ledger_corrupt", 500, "The device's privacy ledger cannot be read";
    /// There are no examples, or nothing was trained.
    NothingToContribute = "nothing_to_contribute", 409, "There is nothing to contribute";
    /// The trained patch is worse on the user's own held-out examples.
    NotImproved = "not_improved", 409, "The training did not improve on held-out examples";
    /// An input of the wrong kind, size or value.
    InputInvalid = "input_invalid", 400, "The input is not valid";
    /// No patch of this name in the library.
    PatchUnknown = "patch_unknown", 404, "The library has no such patch";
    /// Storage on the device failed.
    StorageFailed = "storage_failed", 500, "The device's storage failed";
    /// The device has no room left for what must be stored.
    StorageFull = "storage_full", 507, "The device's storage is full";
    /// The caller cancelled.
    Aborted = "aborted", 499, "The operation was cancelled";
    /// The model was closed.
    Closed = "closed", 409, "The model is closed";
    /// An error of the model core; the detail carries its own code.
    Model = "model_error", 400, "The model or patch is not valid";
}

/// A typed failure: code, what was wrong with values and limits, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    code: &'static str,
    status: u16,
    title: &'static str,
    detail: String,
    hint: Option<String>,
}

impl Problem {
    /// A problem of this code.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code: code.as_str(),
            status: code.status(),
            title: code.title(),
            detail: detail.into(),
            hint: None,
        }
    }

    /// Adds what the caller can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether this is a problem of that code.
    pub fn is(&self, code: Code) -> bool {
        self.code == code.as_str()
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// What was wrong.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What to do.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The `application/problem+json` body (RFC 9457 §3).
    pub fn body(&self) -> ProblemBody {
        ProblemBody {
            r#type: format!("https://backstitch.dev/problems/{}", self.code),
            title: self.title.to_owned(),
            status: self.status,
            code: self.code.to_owned(),
            detail: self.detail.clone(),
            hint: self.hint.clone(),
        }
    }

    /// A problem received from the other side. An unknown code becomes `internal` and keeps its words.
    pub fn from_body(body: &ProblemBody) -> Self {
        let known = Code::ALL.iter().copied().find(|c| c.as_str() == body.code);
        let code = known.unwrap_or(Code::Internal);
        Self { hint: body.hint.clone(), ..Self::new(code, body.detail.clone()) }
    }
}

/// The JSON of a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemBody {
    /// A stable URI per code.
    pub r#type: String,
    /// The short sentence of the code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// What was wrong in this case.
    pub detail: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// The core's errors keep their own code, so that a user sees `patch_mismatch` and not a wrapper.
impl From<backstitch_onnx::Error> for Problem {
    fn from(error: backstitch_onnx::Error) -> Self {
        Self {
            code: error.code().as_str(),
            status: Code::Model.status(),
            title: Code::Model.title(),
            detail: error.message().to_owned(),
            hint: error.hint().map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_survive_the_wire() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{} twice", code.as_str());
            let problem = Problem::new(*code, "x").with_hint("y");
            let text = serde_json::to_string(&problem.body()).unwrap();
            assert_eq!(Problem::from_body(&serde_json::from_str(&text).unwrap()), problem);
        }
    }
}
