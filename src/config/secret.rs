//! Passwords and signatures in URLs. Downloads use them; output and stored files never contain them.
//!
//! [`SecretUrl`] is the type of URL parameters: its `Display`, `Debug` and `Serialize` redact, and only
//! [`SecretUrl::expose`] returns the URL itself. [`redact`] finds URLs in any text, for input that is not under
//! srpipe's control: command lines, library errors, files of older versions.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize, Serializer};

/// The replacement for a secret.
const REDACTED: &str = "***";

/// A URL that may contain a password (`https://user:password@host/`) or a signed query (`?X-Amz-Signature=…`).
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Returns the URL with its secrets, for opening a connection.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether any part of it is secret.
    pub fn has_secret(&self) -> bool {
        !secrets(&self.0, true).is_empty()
    }

    /// Whether its secrets were already redacted, as in the `pipeline.yaml` of a run.
    pub fn is_redacted(&self) -> bool {
        secrets(&self.0, true).into_iter().any(|secret| self.0[secret].contains(REDACTED))
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact_value(&self.0))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<T: Into<String>> From<T> for SecretUrl {
    fn from(address: T) -> Self {
        Self(address.into())
    }
}

/// Replaces user names, passwords, tokens and signatures in URLs with `***`.
pub fn redact(text: &str) -> Cow<'_, str> {
    replaced(text, &secrets(text, false))
}

/// Like [`redact`], for a single value or argument: a URL extends to the end of the text, whatever characters it
/// contains.
pub fn redact_value(text: &str) -> Cow<'_, str> {
    replaced(text, &secrets(text, true))
}

/// Like [`redact`], but keeps the length in bytes, so that positions in the text stay valid.
pub fn mask(text: &str) -> Cow<'_, str> {
    let secrets = secrets(text, false);
    if secrets.is_empty() {
        return text.into();
    }
    let mut masked = text.to_string();
    secrets.into_iter().for_each(|secret| masked.replace_range(secret.clone(), &"*".repeat(secret.len())));
    masked.into()
}

fn replaced<'a>(text: &'a str, secrets: &[Range<usize>]) -> Cow<'a, str> {
    if secrets.is_empty() {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    let mut end = 0;
    for secret in secrets {
        shown += &text[end..secret.start];
        shown += REDACTED;
        end = secret.end;
    }
    (shown + &text[end..]).into()
}

/// Returns the positions of secrets in the URLs of a string, in order. With `whole`, a URL extends to the end of the
/// text and may contain characters that would otherwise end it.
fn secrets(text: &str, whole: bool) -> Vec<Range<usize>> {
    let mut found = vec![];
    let mut from = 0;
    while let Some(at) = text[from..].find("://") {
        let start = from + at + 3;
        let ends = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '`' | '<' | '>' | '\\');
        // In a list, the next URL may follow without a character that ends this one.
        let next = text[start..].find("://").map_or(text.len(), |i| start + i);
        let end = if whole { next } else { text[start..next].find(ends).map_or(next, |i| start + i) };
        secrets_of(text, start..end, &mut found);
        from = end;
    }
    found
}

/// Finds the secrets of one URL, whose range starts after its `://`.
fn secrets_of(text: &str, address: Range<usize>, found: &mut Vec<Range<usize>>) {
    let Range { start, end } = address;
    let until = |from: usize, stops: &[char]| text[from..end].find(stops).map_or(end, |i| from + i);
    let authority = start..until(start, &['/', '?', '#']);
    // An unescaped `/`, `?` or `#` in a password ends the authority too early; then the text after the colon is not a
    // port.
    let port = text[authority.clone()].rsplit_once(':').map(|(_, port)| port);
    let is_port = |port: &str| {
        port.ends_with(']') || port.trim_end_matches([',', '.', ')', ';']).bytes().all(|b| b.is_ascii_digit())
    };
    let is_cut = !text[authority.clone()].contains('@') && port.is_some_and(|port| !is_port(port));
    let searched = if is_cut { start..end } else { authority.clone() };
    let mut rest = start;
    match text[searched].rfind('@') {
        Some(0) => {}
        Some(at) => {
            found.push(start..start + at);
            rest = start + at;
        }
        // The text after the colon is not a port, so treat it as a password.
        None if is_cut => {
            found.push(authority.clone());
            rest = authority.end;
        }
        None => {}
    }
    // Fragments can contain tokens too.
    let mut from = until(rest, &['?', '#']);
    while from < end {
        let parameter = from + 1..until(from + 1, &['&', ';', '?', '#']);
        if let Some((name, value)) = text[parameter.clone()].split_once('=')
            && !value.is_empty()
            && is_secret(name)
        {
            found.push(parameter.end - value.len()..parameter.end);
        }
        from = parameter.end;
    }
}

/// Whether a parameter's name indicates a secret.
fn is_secret(name: &str) -> bool {
    let name: String = name.to_ascii_lowercase().replace("%2d", "-").replace("%5f", "_");
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let parts = ["token", "signature", "passw", "passphrase", "secret", "credential", "apikey", "accesskey", "auth"];
    name.starts_with("x-amz-")
        || name.starts_with("x-goog-")
        || plain.ends_with("key")
        || parts.iter().any(|part| plain.contains(part))
        || ["sig", "pwd", "pass", "pw", "code", "jwt", "session", "sessionid", "sid", "hmac", "policy"]
            .contains(&plain.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_redacted_and_the_rest_stays() {
        for (text, expected) in [
            ("http://u:SECRET@host:80/x?a=1", "http://***@host:80/x?a=1"),
            ("getting https://SECRET@host/x, then", "getting https://***@host/x, then"),
            ("http://u:p@SECRET@host/x", "http://***@host/x"),
            ("http://u:SEC/RET@host/x", "http://***@host/x"),
            ("http://u:SEC?RET@host/x", "http://***@host/x"),
            ("s3://k:SECRET@h and https://u:SECRET@h.", "s3://***@h and https://***@h."),
            (
                "https://h/x?X-Amz-Signature=SECRET&X-Amz-Date=SECRET&part=3",
                "https://h/x?X-Amz-Signature=***&X-Amz-Date=***&part=3",
            ),
            ("{\"url\":\"https://h/x?sig=SECRET\",\"a\":1}", "{\"url\":\"https://h/x?sig=***\",\"a\":1}"),
            (
                "https://h/?access_token=SECRET;api-key=SECRET#id_token=SECRET",
                "https://h/?access_token=***;api-key=***#id_token=***",
            ),
            ("--set stages.c.url=http://u:SECRET@h/", "--set stages.c.url=http://***@h/"),
            (
                "https://h/?password=SECRET&passwd=SECRET&key=SECRET&Key-Pair-Id=3",
                "https://h/?password=***&passwd=***&key=***&Key-Pair-Id=3",
            ),
        ] {
            assert_eq!(redact(text), expected);
            let masked = mask(text);
            assert!(masked.len() == text.len() && !masked.contains("SEC"), "{masked}");
        }
        assert_eq!(redact_value("url=[http://u:SEC'RET@h/,http://v:SECRET@h/]"), "url=[http://***@h/,http://***@h/]");
        assert_eq!(redact("http://u:SECRET@h,http://v:SECRET@h"), "http://***@h,http://***@h");
        assert_eq!(redact("(http://h:80), http://h:80."), "(http://h:80), http://h:80.");
        for plain in [
            "https://host:8080/@user/x?page=2&size=3",
            "http://[::1]:80/x",
            "http://[::1]/x@y",
            "someone@example.org and a://b",
            "file:a@b",
            "https://@host/",
            "",
        ] {
            assert_eq!(redact(plain), plain);
        }
    }

    #[test]
    fn a_url_is_redacted_unless_exposed() {
        // A space would end a URL within a longer text.
        for address in ["http://u:SECRET@h/x?sig=SECRET", "http://u:SEC RET@h/", "http://u:'SECRET\"@h/"] {
            let url = SecretUrl::from(address);
            let all = format!("{url} {url:?} {}", serde_json::to_string(&url).unwrap());
            assert!(!all.contains("SEC") && !all.contains("RET"), "{all}");
            assert_eq!(url.expose(), address);
            assert!(url.has_secret() && !url.is_redacted());
            let again: SecretUrl = serde_json::from_value(serde_json::to_value(&url).unwrap()).unwrap();
            assert!(again.is_redacted());
        }
        let plain: SecretUrl = serde_json::from_str("\"https://h/x?a=1\"").unwrap();
        assert!(!plain.has_secret() && !plain.is_redacted());
        assert_eq!(plain.to_string(), "https://h/x?a=1");
    }
}
