//! srpipe runs super-resolution experiments from YAML: a pipeline file names stages, and what is not known yet about
//! them is computed, each result kept under the name of everything that it depends on. The README tells how to use the
//! binary; here is how the crate is built.
//!
//! # The house
//!
//! The crate is a house of eleven floors. Each module is a room with one concern, and its own documentation says what
//! lives there. A room may use what is on the floors below, never what is above or beside it:
//!
//! ```text
//! cli                   arguments, exit codes, what people read; the only room that prints
//! run                   what is to be done, in which order, in which processes
//! stages                one file a kind of stage: typed parameters and input artifacts in, output artifacts out
//! train      report     the training loop and its snapshots      tables, pictures, curves
//! diffusion  metrics    schedules, objectives, samplers          PSNR, SSIM, CRPS, spectra
//!            stats                                               from paired differences to a verdict
//! model      data       U-Net, checkpoints, target spaces        CIFAR-10, generated images, resampling
//! nn                    networks as graphs, and the backends that run them; the only `unsafe`
//! plan                  the graph of stages, their keys and states; pure
//! store                 content-addressed results and the records of runs; the only room that writes under `runs/`
//! pipeline              the file: parsed, checked, typed; pure
//! random                numbers from a seed, a purpose and counters; pure
//! ```
//!
//! `tests/imports.rs` reads the `use` lines and fails on one that points upwards or sideways. The direction is what
//! keeps a change small: a new sampler is a matter of `diffusion`, whatever draws the progress bar, and the scheduler
//! can be tested without a network because it cannot know of one.
//!
//! # The way of a run
//!
//! 1. [`pipeline::load`] makes a [`pipeline::Pipeline`] of a file, or the list of all its errors. From here on there
//!    are no strings to interpret and no defaults to fill in.
//! 2. [`plan::plan`] makes a graph of it, and [`plan::states`] holds each stage's key against what the store knows. A
//!    key is the SHA-256 of a [`plan::Preimage`]: kind, version of the code, parameters, seed, class of device, and the
//!    *content* of the inputs. So a stage whose inputs came out as before is known, even if they were computed again.
//! 3. [`run::run`] starts a process for each stage that is not known (the hidden command `exec`, [`run::exec`]). One
//!    thread decides what starts; a crash costs one stage.
//! 4. There [`stages::execute`] does the work, and [`store::Store`] keeps the blobs, then the action that names them:
//!    the action is the commit, and whatever dies before it leaves nothing that anybody would take for a result.
//!
//! # What holds everywhere
//!
//! - **The same key, the same bytes**, but for GPUs, whose sums have no fixed order. Results depend neither on the number of threads nor on what ran beside, nor on
//!   an interruption. Sums have a fixed order, and every random number is a function of (seed, purpose, step, index):
//!   see [`random`].
//! - **Decisions are pure, effects at the edge.** `pipeline`, `plan`, `diffusion`, `metrics` and `stats` compute values from
//!   values. Files are touched in `store`, `data` and `run`, the terminal in `cli`.
//! - **Numbers have a reference.** Network, gradients, optimiser, schedules, samplers, resampling and metrics are held
//!   against numbers of PyTorch, NumPy, SciPy and scikit-image in `tests/fixtures`; our own kernels against dfdx's operations.

pub mod cli;
pub mod config;
pub mod data;
pub mod diffusion;
pub mod infer;
pub mod io;
pub mod metrics;
pub mod model;
pub mod nn;
pub mod pipeline;
pub mod plan;
pub mod random;
pub mod report;
pub mod run;
pub mod runs;
pub mod stages;
pub mod stats;
pub mod store;
pub mod train;
