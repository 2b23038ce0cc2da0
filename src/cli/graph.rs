//! The command `srpipe graph`, which shows the dependency graph with the states of stages.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::args::{GraphArgs, GraphFormat};
use super::output::{self, Look, Paint, print};
use super::stage_view::{State, stages_of_file};
use super::{EXIT_DONE, cluster, load};
use crate::config::StageKind;
use crate::config::names::base;
use crate::run::{Prepared, prepare};
use crate::runs::RunView;
use crate::store::Store;

/// A stage, or all instances of a stage.
struct Node {
    name: String,
    kind: StageKind,
    /// The number of instances in each state.
    states: BTreeMap<State, usize>,
    /// The indices of its dependencies, which all precede it.
    reads: Vec<usize>,
}

pub(super) fn graph(args: &GraphArgs, runs: &Path) -> Result<u8> {
    let store = Store::open_existing(runs);
    let mut pipeline = load(&args.file, &args.flags)?;
    cluster::executor(None, &mut pipeline)?;
    let prepared = prepare(&pipeline, store.as_ref())?;
    let view = store.as_ref().and_then(|store| RunView::latest(store, &pipeline.name));
    let nodes = nodes(&prepared, store.as_ref(), view.as_ref(), args.all);
    print(&match args.format {
        _ if args.json => json(&pipeline.name, &nodes),
        GraphFormat::Ascii => ascii(&nodes, Paint::stdout()),
        GraphFormat::Dot => dot(&pipeline.name, &nodes),
        GraphFormat::Mermaid => mermaid(&nodes),
    });
    Ok(EXIT_DONE)
}

/// Returns the nodes of the graph. All instances of a stage are one node, unless `all` is set.
fn nodes(prepared: &Prepared, store: Option<&Store>, latest: Option<&RunView>, all: bool) -> Vec<Node> {
    let mut nodes: Vec<Node> = vec![];
    let mut node_indices = vec![];
    let stages = prepared.plan.stages.iter();
    for (stage, view) in stages.zip(stages_of_file(prepared, store, latest)) {
        let name = if all { stage.name.as_str() } else { base(&stage.name) };
        if nodes.last().is_none_or(|node| node.name != name) {
            nodes.push(Node { name: name.to_string(), kind: stage.kind, states: BTreeMap::new(), reads: vec![] });
        }
        let index = nodes.len() - 1;
        node_indices.push(index);
        *nodes[index].states.entry(view.state).or_default() += 1;
        let reads: Vec<usize> = stage.dependencies.iter().map(|&dependency| node_indices[dependency]).collect();
        nodes[index].reads.extend(reads);
        nodes[index].reads.sort_unstable();
        nodes[index].reads.dedup();
    }
    nodes
}

impl Node {
    /// Returns the number of instances.
    fn count(&self) -> usize {
        self.states.values().sum()
    }

    /// Returns the name, with the number of instances if there are several.
    fn title(&self) -> String {
        if self.count() == 1 { self.name.clone() } else { format!("{} × {}", self.name, self.count()) }
    }

    /// Describes the states of the instances.
    fn states(&self) -> String {
        match self.count() {
            1 => self.states.keys().map(|state| state.style_and_name().1.to_string()).collect(),
            _ => {
                let counts = self.states.iter().map(|(state, n)| format!("{n} {}", state.style_and_name().1));
                counts.collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// Returns the state that needs the most attention.
    fn state(&self) -> State {
        *self.states.keys().next_back().expect("a node has a stage")
    }
}

/// Renders a tree. Each stage is below its last dependency, and its line lists the other dependencies.
fn ascii(nodes: &[Node], paint: Paint) -> String {
    let mut children: Vec<Vec<usize>> = vec![vec![]; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        if let Some(&parent) = node.reads.last() {
            children[parent].push(index);
        }
    }
    let mut lines: Vec<(String, usize)> = vec![];
    for root in (0..nodes.len()).filter(|&index| nodes[index].reads.is_empty()) {
        // Iterative, because a chain of stages may be deeper than the call stack.
        let mut stack = vec![(root, String::new(), String::new())];
        while let Some((index, prefix, child_prefix)) = stack.pop() {
            lines.push((format!("{prefix}{}", nodes[index].title()), index));
            for (i, &child) in children[index].iter().enumerate().rev() {
                let is_last = i + 1 == children[index].len();
                let (branch, continuation) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                stack.push((child, format!("{child_prefix}{branch}"), format!("{child_prefix}{continuation}")));
            }
        }
    }
    let width = lines.iter().map(|(text, _)| text.chars().count()).max().unwrap_or(0);
    let line = |(text, index): &(String, usize)| {
        let node = &nodes[*index];
        let space = " ".repeat(width - text.chars().count());
        let others: Vec<&str> = node.reads.iter().rev().skip(1).rev().map(|&read| nodes[read].name.as_str()).collect();
        let others = if others.is_empty() {
            String::new()
        } else {
            format!("  (and {})", super::explanations::join_names(&others))
        };
        let states = paint.paint(node.state().style_and_name().0, &node.states());
        format!("{text}{space}  {:8} {states}{}\n", node.kind.name(), paint.paint(Look::Dim, &others))
    };
    lines.iter().map(line).collect()
}

/// Returns the fill colour of nodes in a state.
fn colour(state: State) -> &'static str {
    match state.style_and_name().0 {
        Look::Good => "#d3efd3",
        Look::Bad => "#f6d0d0",
        Look::Attention => "#fdeecb",
        Look::Dim | Look::Plain => "#eeeeee",
    }
}

fn dot(pipeline: &str, nodes: &[Node]) -> String {
    let mut text = format!("digraph \"{pipeline}\" {{\n  rankdir=LR;\n  node [shape=box, style=filled];\n");
    for (index, node) in nodes.iter().enumerate() {
        let (title, kind, states) = (node.title(), node.kind.name(), node.states());
        let title = title.replace('\\', "\\\\").replace('"', "\\\"");
        text +=
            &format!("  n{index} [label=\"{title}\\n{kind}: {states}\", fillcolor=\"{}\"];\n", colour(node.state()));
    }
    for (index, node) in nodes.iter().enumerate() {
        node.reads.iter().for_each(|read| text += &format!("  n{read} -> n{index};\n"));
    }
    text + "}\n"
}

fn mermaid(nodes: &[Node]) -> String {
    let mut text = "graph LR\n".to_string();
    for (index, node) in nodes.iter().enumerate() {
        let (title, kind, states) = (node.title().replace('"', "#quot;"), node.kind.name(), node.states());
        text += &format!("  n{index}[\"{title}<br>{kind}: {states}\"]\n");
        text += &format!("  style n{index} fill:{}\n", colour(node.state()));
    }
    for (index, node) in nodes.iter().enumerate() {
        node.reads.iter().for_each(|read| text += &format!("  n{read} --> n{index}\n"));
    }
    text
}

fn json(pipeline: &str, nodes: &[Node]) -> String {
    let node = |node: &Node| {
        let reads: Vec<&str> = node.reads.iter().map(|&read| nodes[read].name.as_str()).collect();
        json!({"name": node.name, "kind": node.kind, "count": node.count(), "states": node.states, "reads": reads})
    };
    let nodes: Vec<_> = nodes.iter().map(node).collect();
    output::json(&json!({"schema": 1, "pipeline": pipeline, "nodes": nodes}))
}
