pub mod demo;
pub mod types;
