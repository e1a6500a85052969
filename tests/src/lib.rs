//! Nothing: cargo wants a library or a program beside the tests, which are all that this package is.
