//! TLS 1.1 and 1.0, which no library here speaks: a greeting written by hand, of which only the first
//! words of the answer are read. Nothing is ever agreed with the server.

use std::{io, net::SocketAddr};

use rustls::pki_types::ServerName;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout_at},
};

use super::network::{connect, looks_like};

const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const SERVER_HELLO: u8 = 2;
/// Bytes of the body of one record, with what ciphers may add.
const RECORD_MAX: usize = 16 * 1024 + 2048;
/// Bytes of the answer that tell what it is: kind, length and version of a `ServerHello`.
const ANSWER: usize = 6;
/// Empty records before the answer that are put up with.
const RECORDS_MAX: usize = 8;

/// The cipher suites of the time: without them a server may refuse for another reason than the version.
const CIPHER_SUITES: [u16; 17] = [
    0xc00a, 0xc009, 0xc014, 0xc013, 0x0039, 0x0033, 0x0038, 0x0032, 0x0035, 0x002f, 0xc008, 0xc012,
    0x0016, 0x000a, 0x0005, 0x0004, // secure renegotiation is understood
    0x00ff,
];

/// A version of TLS that nothing should speak any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OldVersion {
    V1_1,
    V1_0,
}

impl OldVersion {
    pub(super) const ALL: [Self; 2] = [Self::V1_1, Self::V1_0];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V1_1 => "TLS 1.1",
            Self::V1_0 => "TLS 1.0",
        }
    }

    pub(super) const fn number(self) -> u16 {
        match self {
            Self::V1_1 => 0x0302,
            Self::V1_0 => 0x0301,
        }
    }
}

/// What a server does when it is offered nothing newer than a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// It goes on with this version.
    Accepted(u16),
    /// It refuses with this alert.
    Refused(u8),
    /// It closes the connection without a word.
    Closed,
    /// It says nothing until the time is over.
    Silent,
    /// It answers, but not in TLS; what it seems to be, where that is known.
    NotTls(Option<&'static str>),
    /// The connection cannot be made or breaks, in the words of the system.
    Broken(String),
}

/// Offers the server `version` and nothing newer.
pub(super) async fn offer(
    address: SocketAddr,
    name: &ServerName<'_>,
    version: OldVersion,
    deadline: Instant,
) -> Answer {
    match timeout_at(deadline, exchange(address, name, version, deadline)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => broken(&error),
        Err(_) => Answer::Silent,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "other errors are told as the system says them")]
fn broken(error: &io::Error) -> Answer {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionAborted => Answer::Closed,
        io::ErrorKind::TimedOut => Answer::Silent,
        _ => Answer::Broken(error.to_string()),
    }
}

async fn exchange(
    address: SocketAddr,
    name: &ServerName<'_>,
    version: OldVersion,
    deadline: Instant,
) -> io::Result<Answer> {
    let random = random()?;
    let mut io = connect(address, deadline).await?;
    io.write_all(&client_hello(version, name, &random)).await?;
    io.flush().await?;
    let mut answer = Vec::new();
    for _ in 0..RECORDS_MAX {
        let mut head = [0; 5];
        let mut have = 0;
        while let Some(rest) = head.get_mut(have..).filter(|rest| !rest.is_empty()) {
            let read = io.read(rest).await?;
            if read == 0 && have == 0 {
                return Ok(Answer::Closed);
            }
            have += read;
            let so_far = head.get(..have).unwrap_or_default();
            if read == 0 || !could_be_tls(so_far) {
                return Ok(Answer::NotTls(looks_like(so_far)));
            }
        }
        let [kind, _, _, high, low] = head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > RECORD_MAX {
            return Ok(Answer::NotTls(None));
        }
        let wanted = length.min(ANSWER.saturating_sub(answer.len()));
        let mut body = vec![0; wanted];
        io.read_exact(&mut body).await?;
        if kind == ALERT {
            return Ok(body.get(1).map_or(Answer::NotTls(None), |alert| Answer::Refused(*alert)));
        }
        answer.extend(body);
        if let Some(answer) = server_hello(&answer) {
            return Ok(answer);
        }
    }
    Ok(Answer::NotTls(None))
}

/// Whether these may be the first bytes of a record that answers a greeting.
fn could_be_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [] | [HANDSHAKE | ALERT] | [HANDSHAKE | ALERT, 3, ..])
}

/// What the handshake message says, once enough of it is there.
fn server_hello(bytes: &[u8]) -> Option<Answer> {
    match *bytes {
        [SERVER_HELLO, _, _, _, high, low, ..] => {
            Some(Answer::Accepted(u16::from_be_bytes([high, low])))
        }
        [] | [SERVER_HELLO, ..] => None,
        _ => Some(Answer::NotTls(None)),
    }
}

fn random() -> io::Result<[u8; 32]> {
    let mut random = [0; 32];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_| io::Error::other("the operating system gives no random numbers"))?;
    Ok(random)
}

/// The first message of a client that knows nothing newer than `version`, in its record.
fn client_hello(version: OldVersion, name: &ServerName<'_>, random: &[u8; 32]) -> Vec<u8> {
    let mut hello = Vec::with_capacity(256);
    hello.extend(version.number().to_be_bytes());
    hello.extend(random);
    // No session to resume.
    hello.push(0);
    let suites: Vec<u8> = CIPHER_SUITES.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    with_length(&mut hello, &suites);
    // No compression.
    hello.extend([1, 0]);
    with_length(&mut hello, &extensions(name));

    let mut message = vec![1, 0];
    with_length(&mut message, &hello);
    // The record of a first message bears the oldest version, for servers that look at it alone.
    let mut record = vec![HANDSHAKE, 3, 1];
    with_length(&mut record, &message);
    record
}

fn extensions(name: &ServerName<'_>) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let ServerName::DnsName(name) = name {
        let mut entry = vec![0];
        with_length(&mut entry, name.as_ref().as_bytes());
        let mut list = Vec::new();
        with_length(&mut list, &entry);
        extension(&mut extensions, 0, &list);
    }
    // X25519, P-256, P-384, P-521; points that are not compressed.
    extension(&mut extensions, 10, &[0, 8, 0, 29, 0, 23, 0, 24, 0, 25]);
    extension(&mut extensions, 11, &[1, 0]);
    extensions
}

fn extension(extensions: &mut Vec<u8>, number: u16, content: &[u8]) {
    extensions.extend(number.to_be_bytes());
    with_length(extensions, content);
}

/// Appends `content` behind its length in two bytes. Everything here is far shorter than 64 KiB: a host
/// name has at most 253 characters.
fn with_length(out: &mut Vec<u8>, content: &[u8]) {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.extend(content.iter().take(usize::from(length)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_is_what_the_standard_says() {
        let name = ServerName::try_from("a.example").unwrap();
        let hello = client_hello(OldVersion::V1_1, &name, &[7; 32]);
        assert_eq!(hello[..3], [22, 3, 1]);
        let record = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
        assert_eq!(record, hello.len() - 5);
        assert_eq!(hello[5..7], [1, 0]);
        let message = usize::from(u16::from_be_bytes([hello[7], hello[8]]));
        assert_eq!(message, record - 4);
        assert_eq!(hello[9..11], [3, 2], "TLS 1.1");
        assert!(hello.windows(9).any(|part| part == b"a.example"));

        let address = ServerName::try_from("10.0.0.1").unwrap();
        let hello = client_hello(OldVersion::V1_0, &address, &[7; 32]);
        assert_eq!(hello[9..11], [3, 1], "TLS 1.0");
        assert!(!hello.windows(8).any(|part| part == b"10.0.0.1"), "addresses are no server names");
    }

    #[test]
    fn the_beginning_of_an_answer_tells_what_it_is() {
        assert_eq!(server_hello(&[2, 0, 0, 70, 3, 1]), Some(Answer::Accepted(0x0301)));
        assert_eq!(server_hello(&[2, 0, 0]), None);
        assert_eq!(server_hello(&[]), None);
        assert_eq!(server_hello(&[11, 0]), Some(Answer::NotTls(None)));
        for (bytes, could) in [
            (&[22, 3, 1][..], true),
            (&[21], true),
            (&[22, 2], false),
            (b"H", false),
            (&[23, 3, 3], false),
        ] {
            assert_eq!(could_be_tls(bytes), could, "{bytes:?}");
        }
    }
}
