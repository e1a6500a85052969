//! The HTTP planes against bad and good requests.

