//! The bare echo in a process of its own, started from the same program: the most that the stack gives.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use prost::Message as _;
use sso_core::tls::TlsSettings;
use tonic::codegen::http::uri::PathAndQuery;

use super::{
    call::Payload,
    drive::{Job, Part},
    stand::Stand,
};
use crate::echo;

/// The verb of `sso-load` that serves the echo.
pub const VERB: &str = "echo";

/// A running echo. Ends with the value.
#[derive(Debug)]
pub struct Yardstick {
    child: Child,
    url: String,
}

impl Yardstick {
    /// Starts the echo with the certificate of the server of the stand.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(stand: &Stand) -> Self {
        let tls = server_tls(stand);
        let mut child = Command::new(std::env::current_exe().expect("the path of this program"))
            .arg(VERB)
            .args([&tls.certificate, &tls.key, &tls.ca])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the echo starts");
        let mut address = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut address).expect("the address of the echo");
        Self { child, url: format!("https://{}", address.trim()) }
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The same connections and requests in flight as `parts`, with requests and answers of so many
    /// bytes.
    #[must_use]
    pub fn instead_of(&self, parts: &[Part], request: usize, answer: usize) -> Vec<Part> {
        let payload = Payload::Same(message(request, answer).into());
        let job = Job { path: PathAndQuery::from_static(echo::PATH), payload, share: 1 };
        let instead =
            |part: &Part| Part { url: self.url.clone(), jobs: vec![job.clone()], ..part.clone() };
        parts.iter().map(instead).collect()
    }
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request of so many bytes on the wire, whose answer has so many.
fn message(request: usize, answer: usize) -> Vec<u8> {
    let of = |filling: usize, answer: usize| {
        let answer = u32::try_from(answer).unwrap_or(u32::MAX);
        echo::Message { bytes: vec![b'q'; filling], answer }
    };
    // What stands before the bytes: a tag and their length.
    let head = |bytes: usize| of(bytes, 0).encoded_len().saturating_sub(bytes);
    let answer = answer.saturating_sub(head(answer));
    let rest = of(0, answer).encoded_len();
    let filling = request.saturating_sub(rest);
    of(filling.saturating_sub(head(filling)), answer).encode_to_vec()
}

fn server_tls(stand: &Stand) -> TlsSettings {
    #[derive(serde::Deserialize)]
    struct Settings {
        tls: TlsSettings,
    }
    let path = stand.system.installation().server_settings(1);
    let text = std::fs::read_to_string(&path).expect("the settings of the server");
    let settings: Settings = toml::from_str(&text).expect("settings");
    settings.tls.resolve(path.parent().expect("a folder"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echo_has_the_sizes_of_what_it_stands_for() {
        for (request, answer) in [(40, 700), (64, 640), (300, 90), (20, 3)] {
            let message = message(request, answer);
            assert_eq!(message.len(), request, "{request} {answer}");
            let asked = echo::Message::decode(&message[..]).unwrap();
            assert_eq!(echo::answer(&asked).encoded_len(), answer, "{request} {answer}");
        }
    }
}
