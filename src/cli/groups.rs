//! Groups of instances of a swept stage, to show many instances as one line.

use std::ops::Range;

use crate::config::names::base;

/// The maximum number of instances to show individually.
const MAX_INDIVIDUAL: usize = 12;

/// Consecutive stages that are shown as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) members: Range<usize>,
}

/// Groups the stages of a list. Many consecutive instances of one stage become one group, unless `all` is set.
pub(super) fn groups<'a>(names: impl IntoIterator<Item = &'a str>, all: bool) -> Vec<Group> {
    let names: Vec<&str> = names.into_iter().collect();
    let mut groups = vec![];
    let mut start = 0;
    for same in names.chunk_by(|a, b| is_instance(a) && is_instance(b) && base(a) == base(b)) {
        if same.len() <= MAX_INDIVIDUAL || all {
            let single =
                |(i, name): (usize, &&str)| Group { name: name.to_string(), members: start + i..start + i + 1 };
            groups.extend(same.iter().enumerate().map(single));
        } else {
            let name = format!("{}[…] × {}", base(same[0]), same.len());
            groups.push(Group { name, members: start..start + same.len() });
        }
        start += same.len();
    }
    groups
}

fn is_instance(name: &str) -> bool {
    name.contains('[')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_instances_are_one_group() {
        let mut names: Vec<String> = vec!["a".into(), "b[x=1]".into(), "b[x=2]".into()];
        names.extend((0..13).map(|i| format!("c[x={i}]")));
        names.push("d".into());
        let shown = |all| {
            let groups = groups(names.iter().map(String::as_str), all);
            groups.into_iter().map(|g| (g.name, g.members)).collect::<Vec<_>>()
        };
        let few = shown(false);
        assert_eq!(few.len(), 5);
        assert_eq!(few[2], ("b[x=2]".to_string(), 2..3));
        assert_eq!(few[3], ("c[…] × 13".to_string(), 3..16));
        assert_eq!(few[4], ("d".to_string(), 16..17));
        assert_eq!(shown(true).len(), 17);
    }
}
