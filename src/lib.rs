//! srpipe runs super-resolution experiments from YAML. See the README for its use.

pub mod data;
pub mod metrics;
pub mod nn;
pub mod pipeline;
pub mod plan;
pub mod random;
pub mod report;
pub mod stages;
pub mod store;
