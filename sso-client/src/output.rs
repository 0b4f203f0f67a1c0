//! What the command prints: results to standard output, everything else to standard error.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::json;
use sso_client::{ClientError, Environment};
use sso_core::exit::Exit;

use crate::{
    cli::{Format, GlobalArgs},
    failure::Failure,
};

/// Where and how results go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
    color: bool,
}

impl Output {
    pub(crate) fn new(global: &GlobalArgs) -> Self {
        let color = !global.no_color && !Environment::read().no_color;
        Self { format: global.output, quiet: global.quiet, color }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// One JSON document, indented, or what `table` prints.
    pub(crate) fn document<T: Serialize>(
        &self,
        document: &T,
        table: impl FnOnce(&Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => table(self),
            Format::Json => {
                let text = serde_json::to_string_pretty(document).map_err(not_printable)?;
                self.line(&text)
            }
        }
    }

    /// One JSON document on one line; for streams.
    pub(crate) fn json_line<T: Serialize>(&self, document: &T) -> Result<(), Failure> {
        self.line(&serde_json::to_string(document).map_err(not_printable)?)
    }

    /// A line of standard output, exactly as it is.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::io("standard output", error))
    }

    /// Bytes of a document that ends as it ends.
    pub(crate) fn raw(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::io("standard output", error))
    }

    /// A table with a header; control characters in cells are escaped.
    pub(crate) fn table<R>(&self, header: &[&str], rows: R) -> Result<(), Failure>
    where
        R: IntoIterator<Item = Vec<String>>,
    {
        let terminal = io::stdout().is_terminal();
        self.line(&render(header, rows, terminal, terminal && self.color))
    }

    /// Two columns: what and value.
    pub(crate) fn pairs(&self, pairs: Vec<(&str, String)>) -> Result<(), Failure> {
        let rows = pairs.into_iter().map(|(name, value)| vec![name.to_owned(), value]);
        let terminal = io::stdout().is_terminal();
        self.line(&render(&[], rows, terminal, terminal && self.color))
    }

    /// Something good to know, for people only.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet && !self.is_json() {
            say(&escape(text));
        }
    }

    /// Something an administrator should know; a JSON object in JSON mode.
    pub(crate) fn warn(&self, reason: Option<&str>, text: &str) {
        if self.is_json() {
            say(&json!({ "warning": { "reason": reason, "message": text } }).to_string());
        } else {
            say(&format!("sso: warning: {}", escape(text)));
        }
    }

    /// Prints why a command failed and returns the exit code.
    pub(crate) fn failure(&self, failure: &Failure) -> u8 {
        match failure {
            Failure::BrokenPipe | Failure::Reported(_) => {}
            Failure::Client(_)
            | Failure::Refused { .. }
            | Failure::Usage { .. }
            | Failure::File { .. }
            | Failure::Settings(_)
            | Failure::Unavailable(_)
            | Failure::Io { .. }
            | Failure::Command { .. } => say(&match self.format {
                Format::Json => failure_as_json(failure).to_string(),
                Format::Table => failure_as_text(failure),
            }),
        }
        failure.exit_code()
    }

    /// A progress bar on standard error; hidden where nobody looks.
    pub(crate) fn progress(&self, length: usize, what: &'static str) -> indicatif::ProgressBar {
        if self.quiet || self.is_json() || length < 2 || !io::stderr().is_terminal() {
            return indicatif::ProgressBar::hidden();
        }
        let bar = indicatif::ProgressBar::new(u64::try_from(length).unwrap_or(u64::MAX));
        let template = "{msg} [{bar:30}] {pos}/{len}";
        if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.with_message(what)
    }

    /// A growing number on standard error, where the end is not known; hidden where nobody looks.
    pub(crate) fn count(&self, what: &'static str) -> indicatif::ProgressBar {
        if self.quiet || self.is_json() || !io::stderr().is_terminal() {
            return indicatif::ProgressBar::hidden();
        }
        let bar = indicatif::ProgressBar::no_length();
        if let Ok(style) = indicatif::ProgressStyle::with_template("{msg} {pos}") {
            bar.set_style(style);
        }
        bar.with_message(what)
    }
}

/// An argument error of the parser, where JSON was asked for.
pub(crate) fn usage_as_json(text: &str) {
    let message = text.trim_start_matches("error: ").trim_end();
    let error = json!({ "kind": "usage", "message": message, "exit_code": Exit::Usage.code() });
    say(&json!({ "error": error }).to_string());
}

/// Replaces characters that would move the cursor, change the terminal or hide text.
pub(crate) fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            character if character.is_control() || is_invisible(character) => {
                shown.extend(character.escape_unicode());
            }
            character => shown.push(character),
        }
    }
    shown
}

/// Zero-width characters and those that turn the direction of writing.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

fn say(text: &str) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn not_printable(error: serde_json::Error) -> Failure {
    Failure::io("writing JSON", io::Error::other(error))
}

fn render<R>(header: &[&str], rows: R, fit: bool, color: bool) -> String
where
    R: IntoIterator<Item = Vec<String>>,
{
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // A terminal that does not tell its width (0) is none to fit into.
    let fit = fit && table.width().is_some_and(|width| width > 0);
    table.set_content_arrangement(match fit {
        true => ContentArrangement::Dynamic,
        false => ContentArrangement::Disabled,
    });
    if color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if !header.is_empty() {
        let cell = |name: &&str| Cell::new(name).add_attribute(Attribute::Bold);
        table.set_header(header.iter().map(cell).collect::<Vec<_>>());
    }
    for row in rows {
        table.add_row(row.iter().map(|text| Cell::new_owned(escape(text))).collect::<Vec<_>>());
    }
    table.trim_fmt()
}

fn failure_as_text(failure: &Failure) -> String {
    let mut text = format!("sso: error: {}", escape(&failure.message()));
    if let Failure::Client(error) = failure
        && let Some(refusal) = error.refusal()
    {
        text.push_str(&format!("\n  reason:  {}", escape(&refusal.reason)));
        if let Some(event) = refusal.event {
            text.push_str(&format!(" (event {event})"));
        }
        if !refusal.request_id.is_empty() {
            text.push_str(&format!("\n  request: {}", escape(&refusal.request_id)));
        }
    }
    if let Some(hint) = failure.hint() {
        text.push_str(&format!("\n  hint:    {}", escape(&hint)));
    }
    text
}

fn failure_as_json(failure: &Failure) -> serde_json::Value {
    let refusal =
        if let Failure::Client(error) = failure { ClientError::refusal(error) } else { None };
    json!({
        "error": {
            "kind": failure.kind(),
            "message": failure.message(),
            "reason": refusal.map(|refusal| &refusal.reason),
            "event": refusal.and_then(|refusal| refusal.event),
            "request_id": refusal.map(|refusal| &refusal.request_id).filter(|id| !id.is_empty()),
            "hint": failure.hint(),
            "exit_code": failure.exit_code(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|&text| text.to_owned()).collect()).collect()
    }

    #[test]
    fn a_table_is_plain_and_aligned_away_from_a_terminal() {
        let text =
            render(&["NAME", "TYPE"], rows(&[&["App", "a"], &["Longer", "b"]]), false, false);
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines, [" NAME    TYPE", " App     a", " Longer  b"]);
    }

    #[test]
    fn cells_cannot_steer_the_terminal() {
        let text = render(&["A"], rows(&[&["x\u{1b}[2Jy\r\n\u{202e}z"]]), false, false);
        assert!(text.contains("x\\u{1b}[2Jy\\r\\n\\u{202e}z"), "{text}");
    }

    #[test]
    fn failures_as_text_and_json() {
        let failure = Failure::refused("field 'Key' is masked", "use --reveal");
        assert_eq!(
            failure_as_text(&failure),
            "sso: error: field 'Key' is masked\n  hint:    use --reveal"
        );
        let json = failure_as_json(&failure);
        assert_eq!(json["error"]["kind"], "refused");
        assert_eq!(json["error"]["exit_code"], 1);
        assert_eq!(json["error"]["reason"], serde_json::Value::Null);
    }
}
