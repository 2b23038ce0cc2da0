//! srpipe runs super-resolution experiments from YAML. A pipeline file names stages; srpipe computes those that are not
//! cached and stores every result under a key that covers everything it depends on. The README explains how to use the
//! binary. This page explains how the crate is built.
//!
//! # Layers
//!
//! The documentation of each module describes its contents. A module imports only from the layers below it, never from
//! above or from its own layer:
//!
//! ```text
//! cli                   arguments, exit codes, text; the only module that writes to the terminal
//! run                   scheduler, worker processes, executors (this machine, Slurm)
//! report                collects the results of a run and renders them as a page
//! stages                one file or folder per stage kind: parameters and input artifacts in, output artifacts out
//! comparison  infer     metrics, claims and pictures of arms       inference with a trained network
//! train                 training loop, snapshots, budgets
//! diffusion   metrics   schedules, prediction types, samplers      PSNR, SSIM, CRPS, spectra
//!             stats                                                intervals, tests, verdicts
//! model       data      U-Net, checkpoints, target spaces          datasets, pictures, resampling
//! nn                    networks as graphs, and the backends that execute them; the only `unsafe`
//! runs                  records of runs and jobs, retention, export and import, shared caches
//! plan                  dependency graph, stage keys, explanations; pure
//! store                 content-addressed blobs and actions, locks, garbage collection
//! pipeline              the YAML: parsing, diagnostics, sweeps, validation, schema
//! io                    HTTP and tar archives, with limits on time and size
//! config                typed parameters, stage kinds, the table of metrics; pure data
//! random      format    numbers from a seed, a purpose and counters            durations, sizes, counts as text
//! ```
//!
//! `tests/imports.rs` reads the `use` lines and fails on an upward or sideways import. This keeps changes local: a new
//! sampler needs a variant in `config` and a rule in `diffusion`, and the scheduler can be tested without a network.
//!
//! # One run
//!
//! 1. [`pipeline::load`] turns a file into a [`pipeline::Pipeline`], or into the list of all its errors. From here
//!    on, parameters are typed and defaults are filled in.
//! 2. [`plan::plan`] builds the dependency graph, and [`plan::states`] looks up each stage's key in the store. A key is
//!    the SHA-256 of a [`plan::Preimage`]: stage kind, version of its code, parameters, seed, class of device, and the
//!    *content* of the inputs. So a stage whose inputs have the same content as before is cached, even if they were
//!    recomputed.
//! 3. [`run::run`] starts one process for each stage that is not cached (the hidden command `exec`). One thread decides
//!    what starts; a crash fails one stage.
//! 4. In that process, [`stages::execute`] computes the outputs, and [`store::Store`] writes the blobs and then the action
//!    that names them. The action is the commit: a process that dies earlier leaves nothing that looks like a result.
//!
//! # Guarantees
//!
//! - **The same key, the same bytes** on the CPU, whatever the number of threads, other load, or interruptions. Sums have a
//!   fixed order, and every random number is a function of (seed, purpose, step, index): see [`random`]. Results on GPUs
//!   may differ in the last bits.
//! - **Decisions are pure.** `pipeline`, `plan`, `diffusion`, `metrics` and `stats` compute values from values; only
//!   [`pipeline::load`] reads a file. Only `cli` writes to the terminal.
//! - **Numbers have a reference.** The network, gradients, optimiser, schedules, samplers, resampling and metrics are tested
//!   against PyTorch, NumPy, SciPy and scikit-image (`tests/fixtures`), our kernels against dfdx's operations.

pub mod cli;
pub mod comparison;
pub mod config;
pub mod data;
pub mod diffusion;
pub mod format;
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
