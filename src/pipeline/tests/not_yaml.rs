//! Tests of errors about files that are not valid YAML or not a mapping.

use super::*;

#[test]
fn invalid_yaml_is_refused() {
    assert_errors(
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
  = help: a quote or bracket before this is not closed
"#,
    );
}

#[test]
fn windows_line_ends_are_accepted() {
    let expected = "error: unknown key `seeds`\n --> test.yaml:2:1\n  |\n2 | seeds: 1\n  | ^^^^^\n  |\n  = help: did you mean `seed`?";
    assert_errors(&SMALL.replacen('\n', "\nseeds: 1\n", 1).replace('\n', "\r\n"), &[], expected);
}

#[test]
fn tabs_in_the_indentation_are_refused() {
    assert_errors(
        "\
name: x
stages:
\ta: 1
",
        &[],
        r#"
error: a tab is used for indentation
 --> test.yaml:3:1
  |
3 |     a: 1
  | ^
  |
  = help: indent YAML with spaces
"#,
    );
}

#[test]
fn an_empty_file_is_refused() {
    assert_errors(
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
  = help: a pipeline needs `name` and `stages`
"#,
    );
}

#[test]
fn two_documents_are_refused() {
    assert_errors(
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
  = help: a pipeline file contains one document; move the other to its own file
"#,
    );
}

#[test]
fn control_characters_are_refused() {
    assert_errors(
        "\
name: a\u{7}b
",
        &[],
        r#"
error: the text contains the control character U+0007
 --> test.yaml:1:8
  |
1 | name: a␇b
  |        ^
  |
  = help: remove it, or write it as an escape in a double-quoted string
"#,
    );
}

#[test]
fn an_unknown_alias_is_refused() {
    assert_errors(
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
