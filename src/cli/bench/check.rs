//! The command `srpipe bench --check`, which compares a device with the CPU's kernels.

use anyhow::Result;
use serde_json::json;

use super::super::layout::Table;
use super::super::output::{Look, Paint, note, print};
use super::super::{EXIT_DONE, EXIT_FAILED};
use super::Machinery;
use crate::format;
use crate::train::agreement::{Agreement, GRADIENTS, LOSSES, OUTPUTS, STATES, agreement, networks};

pub(super) fn check(machinery: &Machinery, steps: u64, as_json: bool) -> Result<u8> {
    let mut found: Vec<Agreement> = vec![];
    for network in networks() {
        note(&format!("{}: {}, {} ...", machinery.device, network.0, format::count(steps as usize, "step")));
        found.push(agreement(&network, steps, &|graph, state| machinery.open(graph, state))?);
    }
    let agrees = found.iter().all(Agreement::holds);
    match as_json {
        true => print(&format!(
            "{}\n",
            json!({
                "schema": 1, "device": machinery.device.to_string(), "backend": machinery.name(), "steps": steps,
                "agrees": agrees, "networks": found,
            })
        )),
        false => print(&table(&found, agrees)),
    }
    Ok(if agrees { EXIT_DONE } else { EXIT_FAILED })
}

fn table(found: &[Agreement], agrees: bool) -> String {
    let mut table = Table::new(&["network", "outputs", "gradients", "states", "losses", "last loss: CPU", "here", ""]);
    for row in found {
        let plain = |text: String| (Look::Plain, text);
        let [ours, other] = row.last.map_or([String::new(), String::new()], |last| last.map(|l| format!("{l:.4}")));
        table.row(vec![
            plain(row.network.clone()),
            plain(format!("{:.1e}", row.outputs)),
            plain(format!("{:.1e}", row.gradients)),
            plain(row.states.map_or(String::new(), |states| format!("{states:.1e}"))),
            plain(row.losses.map_or(String::new(), |losses| format!("{losses:.1e}"))),
            plain(ours),
            plain(other),
            if row.holds() { (Look::Good, "agrees".into()) } else { (Look::Bad, "differs".into()) },
        ]);
    }
    let verdict = if agrees { "agrees with the CPU's kernels" } else { "does NOT agree with the CPU's kernels" };
    format!(
        "{}\nThe device {verdict}. Bounds: outputs {OUTPUTS:.0e}, gradients {GRADIENTS:.0e} and states {STATES:.0e} of \
         their norm, losses {LOSSES:.0e} of their mean.\n",
        table.render(Paint::stdout())
    )
}
