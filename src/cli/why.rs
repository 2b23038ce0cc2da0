//! The command `srpipe why`, which explains in one sentence why a stage runs or is cached.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::args::WhyArgs;
use super::explanations::{Explained, join_names};
use super::output::{print, print_json};
use super::{EXIT_DONE, cluster, load};
use crate::config::InputError;
use crate::run::prepare;
use crate::store::Store;

/// The maximum number of instances of a swept stage to explain.
const MAX_INSTANCES: usize = 20;

pub(super) fn why(args: &WhyArgs, runs: &Path) -> Result<u8> {
    let store = Store::open_existing(runs);
    let mut pipeline = load(&args.file, &args.flags)?;
    pipeline.device = args.device.unwrap_or(pipeline.device);
    cluster::executor(None, &mut pipeline)?;
    let prepared = prepare(&pipeline, store.as_ref())?;
    let stages = &prepared.plan.stages;
    // The name of a swept stage means all its instances.
    let named = |stage: &usize| stages[*stage].name == args.stage || stages[*stage].base == args.stage;
    let chosen: Vec<usize> = (0..stages.len()).filter(named).collect();
    if chosen.is_empty() {
        let mut names: Vec<&str> = stages.iter().map(|stage| stage.base.as_str()).collect();
        names.dedup();
        let text =
            format!("{} has no stage {}; its stages are {}", args.file.display(), args.stage, join_names(&names));
        return Err(InputError(text).into());
    }
    let explained = Explained::new(&pipeline, &prepared, store.as_ref());
    if args.json {
        let json = |&stage: &usize| {
            let mut json = explained.json(stage);
            json["sentence"] = json!(explained.sentence(stage));
            json["follow"] = json!(explained.dependents(stage));
            json
        };
        let stages: Vec<_> = chosen.iter().map(json).collect();
        print_json(&json!({"schema": 1, "pipeline": pipeline.name, "stages": stages}));
        return Ok(EXIT_DONE);
    }
    for &stage in chosen.iter().take(MAX_INSTANCES) {
        print(&format!("{}\n", explained.sentence(stage)));
    }
    if let more @ 1.. = chosen.len().saturating_sub(MAX_INSTANCES) {
        print(&format!("and {more} more; name an instance, or use --json\n"));
    }
    Ok(EXIT_DONE)
}
