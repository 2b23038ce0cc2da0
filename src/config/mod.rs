//! Typed parameters of pipelines and stages, with their defaults. Pure data: nothing here reads a file.
//!
//! These types are the only description of what a stage may contain: they are deserialised from the pipeline file, their
//! JSON Schema validates it, and their serialisation, with defaults filled in, is part of stage keys. A field that does
//! not change the result of a stage (a thread count, a path, a batch size of sampling) is marked `skip_serializing`, so
//! that it stays out of keys.
//!
//! - `stage`: what a stage kind declares; `kinds`: the list of kinds; [`blobs`]: names of outputs.
//! - [`metrics`]: the declaration of every metric.
//! - `dataset`, `model`, `diffusion`, `training`, `sampling`, `comparison`, [`claims`], `selection`, [`command`]:
//!   parameters by subject.
//! - `loss_kind`: which validation losses are comparable.
//! - `device`, `executor`, `resources`: where stages run. None of these is part of a key, except the class of device.
//! - [`schedule`], [`names`], `secret`, `expansion`: rules for values that validation and higher layers share.
//! - `input_error`: the error for invalid input.

pub mod blobs;
pub mod claims;
pub mod command;
pub mod metrics;
pub mod names;
pub mod schedule;

mod comparison;
mod dataset;
mod device;
mod diffusion;
mod executor;
mod expansion;
mod input_error;
mod kinds;
mod loss_kind;
mod model;
mod resources;
mod sampling;
mod secret;
mod selection;
mod stage;
mod training;

pub use command::CommandParams;
pub use comparison::*;
pub use dataset::*;
pub use device::Device;
pub use diffusion::*;
pub use executor::ExecutorKind;
pub use expansion::expansion_hint;
pub use input_error::InputError;
pub use kinds::{StageKind, StageParams};
pub use loss_kind::LossKind;
pub use model::*;
pub use resources::*;
pub use sampling::*;
pub use secret::{SecretUrl, mask, redact, redact_value};
pub use selection::*;
pub use stage::*;
pub use training::*;
