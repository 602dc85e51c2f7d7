//! Serve connections that sidetrack hands over.

pub mod wire;
