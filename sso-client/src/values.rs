//! Values from the command line, from JSON or from a prompt.

mod list;

use std::{
    collections::HashMap,
    fmt,
    io::{self, IsTerminal as _, Read as _},
    path::Path,
};

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use sso_client::{SecretText, Values};
use zeroize::Zeroizing;

pub(crate) use self::list::{prompt_fields, read_line, read_list, read_secret};
use crate::failure::{Failure, file_name};

/// Bytes of JSON: 256 values of 64 KiB, even with every character escaped.
const MAX_JSON: u64 = 128 * 1024 * 1024;

/// Values by label, each given once, whatever the case of the label.
#[derive(Default)]
pub(crate) struct Collected {
    values: Values,
    seen: HashMap<String, &'static str>,
}

impl Collected {
    /// Adds a value that came from `source`; `None` keeps what is stored.
    pub(crate) fn add(
        &mut self,
        label: String,
        value: Option<SecretText>,
        source: &'static str,
    ) -> Result<(), Failure> {
        if let Some(earlier) = self.seen.insert(label.to_lowercase(), source) {
            return Err(Failure::usage(match earlier == source {
                true => format!("'{label}' is given twice in {source}"),
                false => format!("'{label}' is given in {earlier} and again in {source}"),
            }));
        }
        self.values.insert(label, value);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(crate) fn into_values(self) -> Values {
        self.values
    }
}

/// One `KEY=VALUE`; the value starts behind the first `=` and may be empty.
pub(crate) fn parse_pair(argument: &str) -> Result<(String, SecretText), Failure> {
    let hint = "write KEY=VALUE; for a secret use --prompt KEY or --values -";
    match argument.split_once('=') {
        // The argument is not repeated: it may be a secret in the wrong place.
        None => Err(Failure::usage_hint("an argument behind the identifier has no '='", hint)),
        Some((label, _)) if label.trim().is_empty() => {
            Err(Failure::usage_hint("an argument behind the identifier starts with '='", hint))
        }
        Some((label, value)) => Ok((label.trim().to_owned(), SecretText::new(value.to_owned()))),
    }
}

/// Reads a JSON object from a file, or from standard input for `-`.
pub(crate) fn read_json(file: &Path) -> Result<Vec<(String, Option<SecretText>)>, Failure> {
    require_file(file)?;
    let text = read_text(file, MAX_JSON)?;
    parse_json(&text).map_err(|message| Failure::File { file: file_name(file), message })
}

/// Refuses JSON in the place of a file, and tells where a terminal is read that it is waiting. What was
/// given is not repeated: it holds secrets.
fn require_file(file: &Path) -> Result<(), Failure> {
    let given = file.as_os_str().as_encoded_bytes();
    if given.trim_ascii_start().starts_with(b"[") || given.trim_ascii_start().starts_with(b"{") {
        return Err(Failure::usage_hint(
            "--values names a file; secrets do not stand on the command line",
            "--values - reads standard input; whoever lists processes has seen what you gave: \
             change it",
        ));
    }
    if given == b"-" && io::stdin().is_terminal() {
        return Err(Failure::usage_hint(
            "--values - reads standard input, which is a terminal and would show the values",
            "--values FILE, or --prompt",
        ));
    }
    Ok(())
}

/// A text of at most `longest` bytes from a file, or from standard input for `-`.
fn read_text(file: &Path, longest: u64) -> Result<Zeroizing<String>, Failure> {
    let name = file_name(file);
    let mut text = Zeroizing::new(String::new());
    let read = if file == Path::new("-") {
        io::stdin().lock().take(longest + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(longest + 1).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::io(name.clone(), error))?;
    if text.len() as u64 > longest {
        let message = format!("larger than {longest} bytes");
        return Err(Failure::File { file: name, message });
    }
    Ok(text)
}

/// Parses a JSON object. Strings are values, null keeps the stored value, numbers and booleans stand
/// for their own text. The error never repeats a value.
pub(crate) fn parse_json(text: &str) -> Result<Vec<(String, Option<SecretText>)>, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut problem = None;
    let entries = deserializer
        .deserialize_any(Entries { problem: &mut problem })
        .and_then(|entries| deserializer.end().map(|()| entries));
    match (problem, entries) {
        (Some(problem), _) => Err(problem),
        (None, Ok(entries)) => Ok(entries),
        // The library's own words would quote values of the wrong type.
        (None, Err(error)) if error.is_data() => Err(NOT_AN_OBJECT.to_owned()),
        (None, Err(error)) => {
            Err(format!("line {}, column {}: not valid JSON", error.line(), error.column()))
        }
    }
}

const NOT_AN_OBJECT: &str =
    "must hold one JSON object, such as {\"RetryLimit\": \"5\", \"ApiKey\": null}";

struct Entries<'p> {
    problem: &'p mut Option<String>,
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Vec<(String, Option<SecretText>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Self::Value = Vec::new();
        let mut seen = HashMap::new();
        while let Some((label, raw)) = map.next_entry::<String, &'de RawValue>()? {
            if seen.insert(label.to_lowercase(), ()).is_some() {
                *self.problem = Some(format!("'{label}' stands twice"));
            }
            let raw = raw.get();
            let value = match raw.as_bytes().first() {
                Some(b'n') => None,
                Some(b'"') => match serde_json::from_str(raw) {
                    Ok(text) => Some(SecretText::new(text)),
                    Err(_) => {
                        *self.problem = Some(format!("the text of '{label}' is not valid"));
                        None
                    }
                },
                Some(b'{' | b'[') => {
                    *self.problem =
                        Some(format!("'{label}' is an object or a list; write it as one string"));
                    None
                }
                _ => Some(SecretText::new(raw.to_owned())),
            };
            entries.push((label, value));
        }
        Ok(entries)
    }
}

/// Asks for a secret on the terminal, twice, without showing it.
pub(crate) fn prompt(label: &str) -> Result<SecretText, Failure> {
    ask(label, true, "give the secret as a JSON object on standard input: --values -")
}

/// Asks on the terminal without showing the answer; `hint` is the way where there is no terminal.
pub(crate) fn ask(label: &str, twice: bool, hint: &str) -> Result<SecretText, Failure> {
    let ask = |text: String| {
        rpassword::prompt_password(text)
            .map(SecretText::new)
            .map_err(|_| Failure::usage_hint("there is no terminal to ask on", hint))
    };
    let label = crate::output::escape(label);
    let first = ask(format!("{label}: "))?;
    if twice && first != ask(format!("{label} again: "))? {
        return Err(Failure::usage("the two entries differ; nothing was written"));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
        // Expose: compared with what the test wrote.
        let plain = |value: Option<SecretText>| value.map(|value| value.expose().to_owned());
        parse_json(text)
            .map(|entries| entries.into_iter().map(|(label, v)| (label, plain(v))).collect())
    }

    #[test]
    fn pairs() {
        for (argument, label, value) in [
            ("Url=https://x/?a=b", "Url", "https://x/?a=b"),
            ("Empty=", "Empty", ""),
            ("Dash=-", "Dash", "-"),
            (" Label = spaced", "Label", " spaced"),
            ("With space=1", "With space", "1"),
        ] {
            let (found_label, found_value) = parse_pair(argument).unwrap();
            // Expose: compared with what the test wrote.
            assert_eq!((found_label.as_str(), found_value.expose()), (label, value));
        }
        for bad in ["canary", "=canary", " =canary", ""] {
            let failure = parse_pair(bad).err().unwrap();
            assert_eq!(failure.exit_code(), 2);
            assert!(!failure.message().contains("canary"));
        }
    }

    #[test]
    fn json_is_no_file_and_is_not_repeated() {
        for bad in ["[\"canary\"]", " {\"Key\":\"canary\"}", "["] {
            for failure in [read_json(Path::new(bad)).err(), read_list(Path::new(bad)).err()] {
                let failure = failure.unwrap();
                assert_eq!(failure.exit_code(), 2, "{bad}");
                assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
            }
        }
        assert_eq!(read_list(Path::new("no-such-file")).unwrap_err().exit_code(), 1);
    }

    #[test]
    fn json_values() {
        let entries = json(
            r#" {"a": "x\u00e4\n", "b": null, "c": 1.10, "d": -12345678901234567890123, "e": true,
                "f": "", "g": 1e5 } "#,
        )
        .unwrap();
        let expected = [
            ("a", Some("xä\n")),
            ("b", None),
            ("c", Some("1.10")),
            ("d", Some("-12345678901234567890123")),
            ("e", Some("true")),
            ("f", Some("")),
            ("g", Some("1e5")),
        ];
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(label, value)| (label.to_owned(), value.map(str::to_owned)))
            .collect();
        assert_eq!(entries, expected);
        assert_eq!(json("{}").unwrap(), []);
    }

    #[test]
    fn json_faults_name_no_value() {
        for (text, expected) in [
            ("", "not valid JSON"),
            ("{\"a\": \"canary", "line 1, column"),
            ("{\"a\": canary}", "not valid JSON"),
            ("{\"a\":\n1 \"canary\"}", "line 2, column"),
            ("{} canary", "not valid JSON"),
            ("\"canary\"", "must hold one JSON object"),
            ("[\"canary\"]", "must hold one JSON object"),
            ("7", "must hold one JSON object"),
            ("{\"a\": {\"b\": \"canary\"}}", "'a' is an object or a list"),
            ("{\"a\": [\"canary\"]}", "'a' is an object or a list"),
            ("{\"Key\": \"canary\", \"key\": null}", "'key' stands twice"),
            ("{\"a\": \"\\ud800canary\"}", "the text of 'a' is not valid"),
        ] {
            let error = json(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_label_is_given_once() {
        let mut collected = Collected::default();
        assert!(collected.is_empty());
        collected.add("Key".into(), None, "--values").unwrap();
        let failure = collected.add("KEY".into(), None, "--prompt").unwrap_err();
        assert_eq!(failure.message(), "'KEY' is given in --values and again in --prompt");
        assert_eq!(collected.into_values().len(), 1);
    }
}
