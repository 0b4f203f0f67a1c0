//! A client that would resume its session: `openssl s_client` with a file of sessions.

use std::{path::Path, process::Stdio};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

use super::{
    oracle::Version,
    peers::{PREFACE, Target, openssl_files},
    zoo::Files,
};

/// The head of the first frame that a server of HTTP/2 sends, behind its length.
const SETTINGS: &[u8] = &[4, 0, 0, 0, 0, 0];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    New,
    Resumed,
    Refused,
}

/// Connects with the session kept in the file, if there is one, and keeps the one it has then.
pub(crate) async fn resume(
    target: &Target,
    version: Version,
    files: &Files,
    kept: &Path,
) -> Session {
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-ign_eof", "-alpn", "h2", "-connect", &target.address.to_string()])
        .arg(if version == Version::Tls12 { "-tls1_2" } else { "-tls1_3" })
        .arg("-CAfile")
        .arg(&target.ca)
        .arg("-sess_out")
        .arg(kept)
        .args(openssl_files(Some(files)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if kept.exists() {
        command.arg("-sess_in").arg(kept);
    }
    let mut child = command.spawn().expect("openssl starts");
    let mut stdin = child.stdin.take().expect("its input");
    let mut stdout = child.stdout.take().expect("its output");
    let _ = stdin.write_all(PREFACE).await;
    let _ = stdin.flush().await;
    let mut said = Vec::new();
    while !said.windows(SETTINGS.len()).any(|window| window == SETTINGS) {
        // It ends when it is refused.
        if stdout.read_buf(&mut said).await.unwrap_or(0) == 0 {
            return Session::Refused;
        }
    }
    let said = String::from_utf8_lossy(&said);
    let resumed = said.contains("\nReused, ");
    assert!(resumed || said.contains("\nNew, "), "{said}");
    if resumed { Session::Resumed } else { Session::New }
}
