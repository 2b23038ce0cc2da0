//! The command `srpipe bench --check`, which compares a device with the CPU's kernels.

use anyhow::Result;
use serde_json::json;

use super::super::layout::Table;
use super::super::output::{Look, Paint, note, print};
use super::super::{EXIT_DONE, EXIT_FAILED};
use super::Target;
use crate::format;
use crate::train::agreement::{
    Agreement, MAX_GRADIENT_DIFFERENCE, MAX_LOSS_DIFFERENCE, MAX_OUTPUT_DIFFERENCE, MAX_STATE_DIFFERENCE, agreement,
    networks,
};

/// Compares every kind of network, and prints the differences.
pub(super) fn check(target: &Target, steps: u64, as_json: bool) -> Result<u8> {
    let mut results: Vec<Agreement> = vec![];
    for network in networks() {
        note(&format!("{}: {}, {} ...", target.device, network.0, format::count(steps as usize, "step")));
        results.push(agreement(&network, steps, &|graph, state| target.open(graph, state))?);
    }
    let agrees = results.iter().all(Agreement::is_within_bounds);
    match as_json {
        true => print(&format!(
            "{}\n",
            json!({
                "schema": 1, "device": target.device.to_string(), "backend": target.name(), "steps": steps,
                "agrees": agrees, "networks": results,
            })
        )),
        false => print(&table(&results, agrees)),
    }
    Ok(if agrees { EXIT_DONE } else { EXIT_FAILED })
}

/// Returns the table of the differences, with a verdict.
fn table(results: &[Agreement], agrees: bool) -> String {
    let mut table = Table::new(&["network", "outputs", "gradients", "states", "losses", "last loss: CPU", "here", ""]);
    for row in results {
        let plain = |text: String| (Look::Plain, text);
        let [cpu, device] = row.last.map_or([String::new(), String::new()], |last| last.map(|l| format!("{l:.4}")));
        table.row(vec![
            plain(row.network.clone()),
            plain(format!("{:.1e}", row.outputs)),
            plain(format!("{:.1e}", row.gradients)),
            plain(row.states.map_or(String::new(), |states| format!("{states:.1e}"))),
            plain(row.losses.map_or(String::new(), |losses| format!("{losses:.1e}"))),
            plain(cpu),
            plain(device),
            if row.is_within_bounds() { (Look::Good, "agrees".into()) } else { (Look::Bad, "differs".into()) },
        ]);
    }
    let verdict = if agrees { "agrees with the CPU's kernels" } else { "does NOT agree with the CPU's kernels" };
    format!(
        "{}\nThe device {verdict}. Bounds: outputs {MAX_OUTPUT_DIFFERENCE:.0e}, gradients \
         {MAX_GRADIENT_DIFFERENCE:.0e} and states {MAX_STATE_DIFFERENCE:.0e} of their norm, losses \
         {MAX_LOSS_DIFFERENCE:.0e} of their mean.\n",
        table.render(Paint::stdout())
    )
}
