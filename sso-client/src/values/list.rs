//! Credentials in the order of their fields, and single secrets such as tickets.

use std::{
    fmt,
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    path::Path,
};

use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sso_client::{SecretText, v1::Field};
use zeroize::Zeroizing;

use super::{MAX_JSON, ask, read_text, require_file};
use crate::failure::{Failure, file_name};

/// Bytes of the longest ticket or token that is read.
const MAX_SECRET: u64 = 64 * 1024;

const NOT_A_LIST: &str = "must hold one JSON array of the values from field 1 on, such as \
                          [\"secret\"] or [\"secret\", \"GROUP1\"]";

/// Reads a JSON array from a file, or from standard input for `-`.
pub(crate) fn read_list(file: &Path) -> Result<Vec<SecretText>, Failure> {
    require_file(file)?;
    let text = read_text(file, MAX_JSON)?;
    parse_list(&text).map_err(|message| Failure::File { file: file_name(file), message })
}

/// Reads one secret, such as a ticket, from a file, or from standard input for `-`; white space around
/// it does not belong to it. On a terminal `what` is asked for, and one line is read.
pub(crate) fn read_secret(file: &Path, what: &str) -> Result<SecretText, Failure> {
    let text = match file == Path::new("-") && io::stdin().is_terminal() {
        true => typed(what)?,
        false => read_text(file, MAX_SECRET)?,
    };
    match text.trim() {
        "" => Err(Failure::File { file: file_name(file), message: "it is empty".to_owned() }),
        text => Ok(SecretText::new(text.to_owned())),
    }
}

/// One line of the terminal, which shows what is pasted; its driver cuts it at 4095 bytes.
fn typed(what: &str) -> Result<Zeroizing<String>, Failure> {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{what}: paste it, then Enter");
    let mut line = Zeroizing::new(String::new());
    io::stdin()
        .lock()
        .take(MAX_SECRET)
        .read_line(&mut line)
        .map_err(|error| Failure::io("standard input", error))?;
    Ok(line)
}

/// Reads one line from standard input; what ends the line does not belong to it.
pub(crate) fn read_line() -> Result<SecretText, Failure> {
    let text = read_text(Path::new("-"), MAX_SECRET)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let fault = match line {
        "" => "it is empty",
        line if line.contains('\n') => "it holds more than one line",
        line => return Ok(SecretText::new(line.to_owned())),
    };
    Err(Failure::File { file: "standard input".to_owned(), message: fault.to_owned() })
}

/// Asks for the value of each field but field 0 on the terminal: masked ones twice, none is shown.
pub(crate) fn prompt_fields(fields: &[Field]) -> Result<Vec<SecretText>, Failure> {
    let hint = "give the credentials as a JSON array on standard input: --values -";
    let mut fields: Vec<_> = fields.iter().filter(|field| field.ordinal > 0).collect();
    fields.sort_by_key(|field| field.ordinal);
    fields.into_iter().map(|field| ask(&field.label, field.masked, hint)).collect()
}

/// Parses a JSON array. Every value is a string. The error never repeats a value.
fn parse_list(text: &str) -> Result<Vec<SecretText>, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut problem = None;
    let values = deserializer
        .deserialize_any(Values { problem: &mut problem })
        .and_then(|values| deserializer.end().map(|()| values));
    match (problem, values) {
        (Some(problem), _) => Err(problem),
        (None, Ok(values)) => Ok(values),
        // The library's own words would quote values of the wrong type.
        (None, Err(error)) if error.is_data() => Err(NOT_A_LIST.to_owned()),
        (None, Err(error)) => {
            Err(format!("line {}, column {}: not valid JSON", error.line(), error.column()))
        }
    }
}

struct Values<'p> {
    problem: &'p mut Option<String>,
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Vec<SecretText>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(raw) = sequence.next_element::<&'de RawValue>()? {
            let raw = raw.get();
            let number = values.len() + 1;
            let value = match raw.as_bytes().first() {
                Some(b'"') => serde_json::from_str(raw)
                    .map_err(|_| format!("the text of value {number} is not valid")),
                Some(b'n') => Err(format!("value {number} is null; give every value")),
                Some(b'{' | b'[') => {
                    Err(format!("value {number} is an object or a list; write it as one string"))
                }
                // A number as text could be another one than was meant: 0123, 1e5, 1.10.
                Some(b't' | b'f') => {
                    Err(format!("value {number} is true or false; write it in quotes"))
                }
                _ => Err(format!("value {number} is a number; write it in quotes")),
            };
            values.push(SecretText::new(value.unwrap_or_else(|problem| {
                self.problem.get_or_insert(problem);
                String::new()
            })));
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_values() {
        let texts = |json: &str| {
            // Expose: compared with what the test wrote.
            let plain = |values: Vec<SecretText>| -> Vec<String> {
                values.iter().map(|value| value.expose().to_owned()).collect()
            };
            parse_list(json).map(plain)
        };
        assert_eq!(texts("[]"), Ok(vec![]));
        let expected = ["x\u{e4}\n", "", "1.10"].map(str::to_owned).to_vec();
        assert_eq!(texts(r#" ["x\u00e4\n", "", "1.10"] "#), Ok(expected));
    }

    #[test]
    fn faults_name_no_value() {
        for (text, expected) in [
            ("", "not valid JSON"),
            ("[\"canary", "line 1, column"),
            ("[\"a\"] canary", "not valid JSON"),
            ("{\"a\": \"canary\"}", "must hold one JSON array"),
            ("\"canary\"", "must hold one JSON array"),
            ("[\"canary\", null]", "value 2 is null"),
            ("[1234567]", "value 1 is a number; write it in quotes"),
            ("[\"canary\", true]", "value 2 is true or false; write it in quotes"),
            ("[[\"canary\"]]", "value 1 is an object or a list"),
            ("[\"\\ud800canary\", null]", "the text of value 1"),
        ] {
            let error = parse_list(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
