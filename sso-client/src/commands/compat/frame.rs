//! What every switch prints before and after its own output, and how failures look.

use std::io::{self, Write as _};

use sso_client::{ClientError, Refusal, v1::Warning};
use sso_core::exit::Exit;

use super::super::Service;
use crate::{
    cli::GlobalArgs,
    failure::Failure,
    output::{Output, escape},
};

/// One call of a tool.
pub(super) struct Call<'g> {
    service: Service<'g>,
    output: Output,
    arguments: Vec<String>,
}

impl<'g> Call<'g> {
    pub(super) fn new(global: &'g GlobalArgs, arguments: Vec<String>) -> Self {
        Self { service: Service { global }, output: Output::new(global), arguments }
    }

    /// The argument at this place; empty where it is left out.
    pub(super) fn argument(&self, place: usize) -> &str {
        self.arguments.get(place).map(String::as_str).unwrap_or_default()
    }

    pub(super) fn service(&self) -> &Service<'g> {
        &self.service
    }

    /// A thousand mappings take their time, and old scripts know no deadline at all.
    pub(super) fn connect(&self) -> Result<sso_client::Client, Failure> {
        self.service.connect_for_batches()
    }

    /// The server in use. Without one a switch that needs none goes on.
    pub(super) fn begin(&self, needed: bool) -> Result<(), Failure> {
        match self.service.profile() {
            Ok(profile) if is_here(&profile.addr) => self.begin_with("on this computer"),
            Ok(profile) => self.begin_with(&format!(": {}", profile.addr)),
            Err(failure) if needed => Err(failure),
            Err(_) => Ok(()),
        }
    }

    fn begin_with(&self, server: &str) -> Result<(), Failure> {
        let space = if server.starts_with(':') { "" } else { " " };
        self.line(&format!("Using SSO server{space}{server}"))?;
        self.line("")
    }

    pub(super) fn end(&self) -> Result<(), Failure> {
        self.line("")?;
        self.line("The operation completed successfully.")
    }

    pub(super) fn line(&self, text: &str) -> Result<(), Failure> {
        self.output.line(&escape(text))
    }

    /// Names and values, the colons below one another.
    pub(super) fn pairs(&self, pairs: &[(&str, String)]) -> Result<(), Failure> {
        let widest = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        for (name, value) in pairs {
            self.line(format!("{name:widest$} : {value}").trim_end())?;
        }
        Ok(())
    }

    pub(super) fn warn(&self, text: &str) {
        say(&format!("WARNING: {}", escape(text)));
    }

    /// A bar on a terminal; nothing elsewhere.
    pub(super) fn progress(&self, length: usize, what: &'static str) -> indicatif::ProgressBar {
        self.output.progress(length, what)
    }

    pub(super) fn warn_all(&self, warnings: &[Warning]) {
        for warning in warnings {
            self.warn(&format!("{} ({})", warning.message, code(&warning.reason, warning.event)));
        }
    }

    /// One of several that failed; the others go on.
    pub(super) fn report(&self, failure: &Failure) {
        say(&text_of(failure));
    }
}

/// Whether the address is of this machine, as the reference product says it.
fn is_here(addr: &str) -> bool {
    if addr.starts_with("unix://") {
        return true;
    }
    let host = addr.strip_prefix("https://").unwrap_or(addr);
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A reason with the number that the reference product gives for the same thing, `0xC0000000|event`.
pub(super) fn code(reason: &str, event: u32) -> String {
    match event {
        0 => reason.to_owned(),
        event => format!("0x{:08X}, {reason}", 0xC000_0000 | event),
    }
}

pub(super) fn refusal_text(refusal: &Refusal) -> String {
    let code = code(&refusal.reason, refusal.event.unwrap_or_default());
    match refusal.request_id.as_str() {
        "" => code,
        id => format!("{code}, request {id}"),
    }
}

pub(super) fn help(text: &str) -> u8 {
    // Nobody is left to tell when standard output is gone.
    let _ = writeln!(io::stdout().lock(), "{text}");
    Exit::Ok.code()
}

pub(super) fn usage(message: &str, usage: &str) -> u8 {
    let text = format!("ERROR: {}\n{usage}", escape(message));
    say(text.trim_end());
    Exit::Usage.code()
}

/// Prints why a switch failed and returns the exit code.
pub(super) fn failure(failure: &Failure, usage: &str) -> u8 {
    match failure {
        Failure::BrokenPipe | Failure::Reported(_) => {}
        Failure::Usage { .. } => say(&format!("{}\n{usage}", text_of(failure))),
        Failure::Client(_)
        | Failure::Refused { .. }
        | Failure::File { .. }
        | Failure::Settings(_)
        | Failure::Unavailable(_)
        | Failure::Io { .. }
        | Failure::Command { .. } => say(&text_of(failure)),
    }
    failure.exit_code()
}

fn text_of(failure: &Failure) -> String {
    let mut text = format!("ERROR: {}", escape(&failure.message()));
    if let Failure::Client(error) = failure
        && let Some(refusal) = ClientError::refusal(error)
    {
        text.push_str(&format!("\nError code: {}", escape(&refusal_text(refusal))));
    }
    // Hints at commands of `sso` say nothing to whoever knows these tools.
    if let Some(hint) = failure.hint().filter(|hint| !hint.contains("'sso ")) {
        hint.lines().for_each(|line| text.push_str(&format!("\n{}", escape(line))));
    }
    text
}

fn say(text: &str) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_computer() {
        for addr in
            ["https://localhost:7400", "https://127.0.0.1:1", "https://[::1]:1", "unix:///run/s"]
        {
            assert!(is_here(addr), "{addr}");
        }
        for addr in ["https://sso.example:7400", "https://10.0.0.1:7400", "https://localhost.x:1"] {
            assert!(!is_here(addr), "{addr}");
        }
    }

    #[test]
    fn a_failure_has_the_number_of_the_reference_product() {
        let refusal = Refusal {
            reason: "MAPPING_NOT_FOUND".into(),
            event: Some(10757),
            message: "there is no such mapping".into(),
            request_id: "r-1".into(),
        };
        let text = text_of(&Failure::Client(ClientError::NotFound(refusal)));
        assert!(text.starts_with("ERROR: there is no such mapping\n"), "{text}");
        assert!(text.contains("Error code: 0xC0002A05, MAPPING_NOT_FOUND, request r-1"), "{text}");
        assert!(!text.contains("sso mapping"), "{text}");
        assert_eq!(code("SERVER_NOT_FOUND", 0), "SERVER_NOT_FOUND");
    }
}
