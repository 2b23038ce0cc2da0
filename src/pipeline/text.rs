//! Formatting of names and lists in messages, and suggestions for misspelled names.

use crate::config::redact_value;

/// The maximum number of characters of a string in messages.
const MAX_SHOWN: usize = 60;
/// The maximum number of candidates for a suggestion.
const MAX_CANDIDATES: usize = 2000;

/// Returns the text in backquotes, with control characters escaped, secrets redacted, and long text truncated.
pub(super) fn quote(text: &str) -> String {
    quote_at_most(text, MAX_SHOWN)
}

/// Like [`quote`], but never truncates: for text that the user copies.
pub(super) fn quote_whole(text: &str) -> String {
    quote_at_most(text, usize::MAX)
}

fn quote_at_most(text: &str, most: usize) -> String {
    // Redact before truncating: half a password is a secret too.
    let text = redact_value(text);
    let mut shown: String = text.chars().take(most).flat_map(escape).collect();
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

fn escape(c: char) -> Box<dyn Iterator<Item = char>> {
    // Keep messages on one line, without characters that move the cursor or look like a plain space.
    if is_invisible(c) || is_odd_space(c) { Box::new(c.escape_default()) } else { Box::new([c].into_iter()) }
}

/// Whether a character is a control character, or a line break in some version of YAML.
pub(super) fn is_invisible(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{FEFF}')
}

/// Whether a character is indistinguishable from a plain space or invisible.
pub(super) fn is_odd_space(c: char) -> bool {
    matches!(look_alike(c), Some((_, " " | "")))
}

/// Returns the name of a character that looks like one that YAML or a number needs, and its replacement. Such
/// characters come from web pages and word processors.
pub(super) fn look_alike(c: char) -> Option<(&'static str, &'static str)> {
    Some(match c {
        '\u{A0}' => ("a no-break space", " "),
        '\u{202F}' => ("a narrow no-break space", " "),
        '\u{3000}' => ("an ideographic space", " "),
        '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{205F}' => ("a typographic space", " "),
        '\u{200B}' => ("a zero-width space", ""),
        '\u{200C}' | '\u{200D}' | '\u{2060}' => ("a zero-width joiner", ""),
        '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => ("a mark of text direction", ""),
        '\u{FEFF}' => ("a byte order mark", ""),
        '\u{AD}' => ("a soft hyphen", ""),
        '\u{2010}' | '\u{2011}' => ("a typographic hyphen", "-"),
        '\u{2012}' => ("a figure dash", "-"),
        '\u{2013}' => ("an en dash", "-"),
        '\u{2014}' | '\u{2015}' => ("an em dash", "-"),
        '\u{2212}' => ("a minus sign", "-"),
        '\u{2018}' | '\u{2019}' | '\u{201A}' | '\u{2032}' => ("a typographic quote", "'"),
        '\u{201C}'..='\u{201E}' | '\u{AB}' | '\u{BB}' => ("a typographic quote", "\""),
        '\u{FF1A}' => ("a full-width colon", ":"),
        '\u{FF0C}' => ("a full-width comma", ","),
        '\u{FF0E}' => ("a full-width full stop", "."),
        _ => return None,
    })
}

/// Returns help that names the first lookalike in a refused value.
pub(super) fn odd_character(text: &str) -> Option<String> {
    let (c, (name, plain)) = text.chars().find_map(|c| Some((c, look_alike(c)?)))?;
    let remedy = match plain {
        "" => "remove it".to_string(),
        " " => "use a plain space, or remove it".to_string(),
        plain => format!("write {plain}"),
    };
    Some(format!("it contains {name} (U+{:04X}): {remedy}", c as u32))
}

/// Returns "`a`, `b` or `c`".
pub(super) fn alternatives<S: AsRef<str>>(words: &[S]) -> String {
    let words: Vec<String> = words.iter().map(|w| quote(w.as_ref())).collect();
    match words.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Returns "`a`, `b`, `c`"; a long list is truncated.
pub(super) fn list<S: AsRef<str>>(words: &[S]) -> String {
    const MOST: usize = 40;
    let shown: Vec<String> = words.iter().take(MOST).map(|w| quote(w.as_ref())).collect();
    let rest = words.len() - shown.len();
    shown.join(", ") + &if rest > 0 { format!(" and {rest} more") } else { String::new() }
}

/// Returns the candidate that `word` most likely misspells.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 100 {
        return None;
    }
    let folded = fold(word);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates.into_iter().take(MAX_CANDIDATES).filter(|c| c.len() <= 100) {
        // Up to a third of the word may differ, as in rustc, but not all of it.
        let longer = word.len().max(candidate.len());
        let allowed = (longer.max(3) / 3).min(longer.saturating_sub(1));
        if word.len().abs_diff(candidate.len()) <= allowed {
            let distance = strsim::damerau_levenshtein(&folded, &fold(candidate));
            if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
                best = Some((distance, candidate));
            }
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Ignores case and the choice of separator.
fn fold(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

/// Returns "did you mean `x`?" if a candidate is similar.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, candidates).map(|c| format!("did you mean {}?", quote(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_words_get_a_suggestion_and_unrelated_words_none() {
        let words = ["base_channels", "attention", "steps"];
        for (word, meant) in [
            ("base_chanels", Some("base_channels")),
            ("Base-Channels", Some("base_channels")),
            ("atention", Some("attention")),
            ("setps", Some("steps")),
            ("epochs", None),
            ("", None),
            ("x", None),
            ("steps_per_epoch_and_more", None),
        ] {
            assert_eq!(nearest(word, words), meant, "{word}");
        }
    }

    #[test]
    fn quoted_text_is_a_single_line_of_bounded_length() {
        assert_eq!(quote("a\nb\u{1b}[31m"), "`a\\nb\\u{1b}[31m`");
        assert_eq!(quote(&"x".repeat(100_000)), format!("`{}…`", "x".repeat(60)));
        assert_eq!(quote("größe"), "`größe`");
    }

    #[test]
    fn alternatives_read_as_a_sentence() {
        assert_eq!(alternatives(&["a"]), "`a`");
        assert_eq!(alternatives(&["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
