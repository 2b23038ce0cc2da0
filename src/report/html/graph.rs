//! Draws the stage graph as SVG; inputs are to the left of the stages that read them.

use std::fmt::Write;

use super::Badge;
use super::chart::{escape, number};

/// A stage, or all instances of a stage.
#[derive(Debug, Clone, Default)]
pub struct Node {
    pub name: String,
    pub kind: &'static str,
    pub count: usize,
    pub state: Badge,
    pub time: String,
    /// The indices of its inputs, all smaller than its own.
    pub reads: Vec<usize>,
}

const BOX: (f64, f64) = (168.0, 46.0);
const GAP: (f64, f64) = (46.0, 14.0);

/// The maximum length of a name; longer names are truncated.
const MOST_LETTERS: usize = 19;

/// Returns `None` if there is nothing to draw.
pub(super) fn draw(nodes: &[Node]) -> Option<String> {
    let places = places(nodes);
    let columns = places.iter().map(|p| p.0 + 1).max()?;
    let rows = places.iter().map(|p| p.1.ceil() as usize + 1).max()?;
    let corner = |index: usize| {
        let (column, row) = places[index];
        (column as f64 * (BOX.0 + GAP.0) + 1.0, row * (BOX.1 + GAP.1) + 1.0)
    };
    let (width, height) = (columns as f64 * (BOX.0 + GAP.0) - GAP.0 + 2.0, rows as f64 * (BOX.1 + GAP.1) - GAP.1 + 2.0);
    let mut svg = format!(
        "<svg class=\"graph\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
         aria-label=\"stage graph\">"
    );
    for index in 0..nodes.len() {
        let (to_x, to_y) = corner(index);
        for read in direct(nodes, index) {
            let (from_x, from_y) = corner(read);
            let (x0, y0, x1, y1) = (from_x + BOX.0, from_y + BOX.1 / 2.0, to_x, to_y + BOX.1 / 2.0);
            let bend = GAP.0.max((x1 - x0) / 3.0);
            let _ = write!(
                svg,
                "<path class=\"edge\" d=\"M{},{} C{},{} {},{} {},{}\"/>",
                number(x0),
                number(y0),
                number(x0 + bend),
                number(y0),
                number(x1 - bend),
                number(y1),
                number(x1),
                number(y1)
            );
        }
    }
    for (index, node) in nodes.iter().enumerate() {
        let (x, y) = corner(index);
        let count = if node.count > 1 { format!(" × {}", node.count) } else { String::new() };
        let letters = MOST_LETTERS - count.chars().count().min(8);
        let mut name: String = node.name.chars().take(letters).collect();
        if name.len() < node.name.len() {
            name.pop();
            name.push('…');
        }
        let tone = format!("{:?}", node.state.tone).to_lowercase();
        let shown: Vec<&str> =
            [node.kind, &node.state.word, &node.time].into_iter().filter(|text| !text.is_empty()).collect();
        let _ = write!(
            svg,
            "<g class=\"node {tone}\"><title>{0}{count}</title><rect x=\"{1}\" y=\"{2}\" width=\"{3}\" height=\"{4}\" \
             rx=\"6\"/><text x=\"{5}\" y=\"{6}\">{7}{count}</text><text class=\"note\" x=\"{5}\" y=\"{8}\">{9}</text></g>",
            escape(&node.name),
            number(x),
            number(y),
            BOX.0,
            BOX.1,
            number(x + 10.0),
            number(y + 19.0),
            escape(&name),
            number(y + 36.0),
            escape(&shown.join(" · ")),
        );
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// Returns the inputs of a node that are not also indirect inputs; lines for those would run behind other nodes.
fn direct(nodes: &[Node], index: usize) -> Vec<usize> {
    let reads = &nodes[index].reads;
    let mut implied = vec![false; index];
    // From the nearest back: everything that an input reads in turn is implied.
    for at in (0..index).rev() {
        if implied[at] || reads.contains(&at) {
            nodes[at].reads.iter().for_each(|&read| implied[read] = true);
        }
    }
    reads.iter().copied().filter(|&read| !implied[read]).collect()
}

/// Returns the column and the row of each node: one column right of its rightmost input, in a row near its inputs.
fn places(nodes: &[Node]) -> Vec<(usize, f64)> {
    let mut columns: Vec<usize> = vec![];
    for node in nodes {
        columns.push(node.reads.iter().map(|&read| columns[read] + 1).max().unwrap_or(0));
    }
    let mut rows = vec![0.0; nodes.len()];
    for column in 0..=columns.iter().copied().max().unwrap_or(0) {
        let mut members: Vec<usize> = (0..nodes.len()).filter(|&i| columns[i] == column).collect();
        let wish = |index: usize| {
            let reads = &nodes[index].reads;
            reads.iter().map(|&read| rows[read]).sum::<f64>() / reads.len().max(1) as f64
        };
        let wishes: Vec<f64> = members.iter().map(|&index| wish(index)).collect();
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by(|&a, &b| wishes[a].total_cmp(&wishes[b]));
        members = order.iter().map(|&i| members[i]).collect();
        members.iter().enumerate().for_each(|(row, &index)| rows[index] = row as f64);
    }
    // Shorter columns are centred vertically.
    let count = |column: usize| columns.iter().filter(|&&c| c == column).count();
    let most = columns.iter().map(|&column| count(column)).max().unwrap_or(0);
    columns.iter().zip(rows).map(|(&column, row)| (column, row + (most - count(column)) as f64 / 2.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_to_the_right_of_their_inputs() {
        let node = |reads: &[usize]| Node { name: "<x>".into(), count: 1, reads: reads.to_vec(), ..Node::default() };
        let nodes = [node(&[]), node(&[0]), node(&[0]), node(&[1, 0])];
        assert_eq!(places(&nodes), [(0, 0.5), (1, 0.0), (1, 1.0), (2, 0.5)]);
        let svg = draw(&nodes).unwrap();
        // Node 3 also reads node 0 through node 1.
        assert_eq!(direct(&nodes, 3), [1]);
        assert_eq!(svg.matches("class=\"edge\"").count(), 3);
        assert!(svg.contains("&lt;x&gt;") && !svg.contains("<x>"));
        assert_eq!(draw(&[]), None);
    }
}
