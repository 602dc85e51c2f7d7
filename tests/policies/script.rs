//! Policies as JavaScript.
