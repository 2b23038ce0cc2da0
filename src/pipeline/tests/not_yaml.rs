//! Messages about texts that are no pipeline at all.

use super::*;

#[test]
fn a_file_that_is_not_yaml() {
    says(
        "\
name: x
stages: [a
other: b
",
        &[],
        r#"
error: not valid YAML: illegal placement of ':' indicator
 --> test.yaml:3:6
  |
3 | other: b
  |      ^
  |
  = help: before this, a quote or a bracket has no end
"#,
    );
}

#[test]
fn a_file_from_windows() {
    let expected = "error: unknown key `seeds`\n --> test.yaml:2:1\n  |\n2 | seeds: 1\n  | ^^^^^\n  |\n  = help: did you mean `seed`?";
    says(&SMALL.replacen('\n', "\nseeds: 1\n", 1).replace('\n', "\r\n"), &[], expected);
}

#[test]
fn tabs() {
    says(
        "\
name: x
stages:
\ta: 1
",
        &[],
        r#"
error: a tab
 --> test.yaml:3:1
  |
3 |     a: 1
  | ^
  |
  = help: YAML is indented with spaces
"#,
    );
}

#[test]
fn an_empty_file() {
    says(
        "\
# nothing yet
",
        &[],
        r#"
error: the file is empty
 --> test.yaml:1:1
  |
1 | # nothing yet
  | ^
  |
  = help: a pipeline has a `name` and `stages`
"#,
    );
}

#[test]
fn two_documents() {
    says(
        "\
name: a
---
name: b
",
        &[],
        r#"
error: a second document starts here
 --> test.yaml:2:1
  |
2 | ---
  | ^^^
  |
  = help: a pipeline file holds one; write the other to a file of its own
"#,
    );
}

#[test]
fn control_characters() {
    says(
        "\
name: a\u{7}b
",
        &[],
        r#"
error: control character U+0007 in the text
 --> test.yaml:1:8
  |
1 | name: a␇b
  |        ^
  |
  = help: YAML is text; within double quotes such a character is written as an escape
"#,
    );
}

#[test]
fn an_unknown_alias() {
    says(
        "\
name: a
stages: *x
",
        &[],
        r#"
error: not valid YAML: while parsing node, found unknown anchor
 --> test.yaml:2:9
  |
2 | stages: *x
  |         ^
"#,
    );
}
