pub mod policy;
pub mod types;
