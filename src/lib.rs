//! srpipe runs super-resolution experiments from YAML. See the README for its use.

pub mod cli;
pub mod data;
pub mod diffusion;
pub mod metrics;
pub mod model;
pub mod nn;
pub mod pipeline;
pub mod plan;
pub mod random;
pub mod report;
pub mod run;
pub mod stages;
pub mod store;
pub mod train;
