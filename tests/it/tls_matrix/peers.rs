//! Clients of the server: `openssl s_client`, `curl` and our own. Each connects once, and says whether
//! it was served or which alert it saw.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rcgen::date_time_ymd;
use sso_core::{
    clock::Clock,
    connector::{ClientTls, ConnectOptions, connect_channel, tls_reason, transport_reason},
    tls::{Application, TlsReloader, TlsSettings, TrustSettings},
};
use sso_tests::{left_out, raw};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

use super::{
    oracle::Version,
    zoo::{Files, Kind},
};

/// How long a client may take: long, as many share few cores.
const PATIENCE: Duration = Duration::from_secs(60);
/// What an HTTP/2 client says first, with an empty frame of settings.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Length of the head of a frame, and where in it stands the kind; 4 are settings.
const FRAME_HEAD: usize = 9;
const FRAME_KIND: usize = 3;
const SETTINGS: u8 = 4;
/// OpenSSL numbers its errors for alerts from here.
const OPENSSL_ALERTS: u32 = 1000;

/// What `curl` ends with when it does not believe a server; and the alert that it takes for that.
const CURL_DISBELIEVES: i32 = 60;
const CERTIFICATE_EXPIRED: u8 = 45;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    OpenSsl,
    Curl,
    Own,
}

/// Where to connect, and whom the clients trust.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) ca: PathBuf,
}

/// What a client learnt.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    Served,
    Refused {
        alert: Option<u8>,
        /// What our client says that it is.
        reason: Option<&'static str>,
        words: String,
    },
}

impl Peer {
    /// Those that are installed. Says which are not.
    pub(crate) fn installed() -> Vec<Self> {
        let mut peers = vec![Self::Own];
        peers.extend(has_openssl().then_some(Self::OpenSsl));
        peers.extend(has_curl().then_some(Self::Curl));
        peers
    }

    /// The versions that the peer can be told to speak. Ours takes the highest that both know.
    pub(crate) fn versions(self) -> &'static [Version] {
        match self {
            Self::OpenSsl | Self::Curl => &[Version::Tls12, Version::Tls13],
            Self::Own => &[Version::Tls13],
        }
    }

    /// Connects with what is shown, and speaks.
    pub(crate) async fn ask(
        self,
        target: &Target,
        version: Version,
        (kind, files): (Kind, Option<&Files>),
    ) -> Seen {
        let asked = async {
            match self {
                Self::OpenSsl => {
                    let version = if version == Version::Tls12 { "-tls1_2" } else { "-tls1_3" };
                    openssl(target, &[version], files).await
                }
                Self::Curl => {
                    let version = if version == Version::Tls12 { "1.2" } else { "1.3" };
                    curl(target, version, files).await
                }
                Self::Own => own(target, kind, files).await,
            }
        };
        tokio::time::timeout(PATIENCE, asked)
            .await
            .unwrap_or_else(|_| panic!("{self:?} {version:?} {kind:?} does not end"))
    }
}

/// Whether there is the command `openssl`. Says so where there is not.
pub(crate) fn has_openssl() -> bool {
    is_installed("openssl", "version", "OPENSSL")
}

pub(crate) fn has_curl() -> bool {
    is_installed("curl", "--version", "CURL")
}

fn is_installed(program: &str, argument: &str, what: &str) -> bool {
    let mut command = std::process::Command::new(program);
    let installed = command.arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let installed = installed.is_ok_and(|status| status.success());
    if !installed {
        left_out(what, &format!("{program} is not installed"));
    }
    installed
}

/// The arguments that make `openssl s_client` show this.
pub(crate) fn openssl_files(files: Option<&Files>) -> Vec<&Path> {
    let Some(files) = files else { return Vec::new() };
    let mut arguments = vec![Path::new("-cert"), &files.certificate, Path::new("-key"), &files.key];
    if let Some(chain) = &files.chain {
        arguments.extend([Path::new("-cert_chain"), chain]);
    }
    arguments
}

/// `openssl s_client`, which is served when the first frame of HTTP/2 comes back.
pub(crate) async fn openssl(target: &Target, more: &[&str], files: Option<&Files>) -> Seen {
    let mut child = Command::new("openssl")
        .args(["s_client", "-quiet", "-alpn", "h2", "-connect", &target.address.to_string()])
        .arg("-CAfile")
        .arg(&target.ca)
        .args(more)
        .args(openssl_files(files))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("openssl starts");
    let mut stdin = child.stdin.take().expect("its input");
    let mut stdout = child.stdout.take().expect("its output");
    let mut stderr = child.stderr.take().expect("its errors");
    // A client that was refused reads nothing any more. The input stays open: its end ends the client.
    let _ = stdin.write_all(PREFACE).await;
    let _ = stdin.flush().await;
    let mut frame = [0; FRAME_HEAD];
    let words = async {
        let mut words = Vec::new();
        let _ = stderr.read_to_end(&mut words).await;
        String::from_utf8_lossy(&words).into_owned()
    };
    if stdout.read_exact(&mut frame).await.is_ok() && frame[FRAME_KIND] == SETTINGS {
        return Seen::Served;
    }
    drop(stdin);
    let words = words.await;
    Seen::Refused { alert: openssl_alert(&words), reason: None, words }
}

/// `curl`, which is served when there is an answer of HTTP.
async fn curl(target: &Target, version: &str, files: Option<&Files>) -> Seen {
    let mut command = Command::new("curl");
    command
        .args(["-q", "--silent", "--show-error", "--http2", "--noproxy", "*"])
        .args(["--output", "/dev/null", "--write-out", "%{http_code}"])
        .arg(format!("--tlsv{version}"))
        .args(["--tls-max", version])
        .arg("--cacert")
        .arg(&target.ca)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(files) = files {
        command.arg("--cert").arg(&files.certificate).arg("--key").arg(&files.key);
    }
    command.arg(format!("https://{}/", target.address));
    let output = command.output().await.expect("curl starts");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() && output.stdout == b"200" {
        return Seen::Served;
    }
    // In a handshake of TLS 1.2 it takes this alert for a fault of the server's certificate.
    let mistaken = (output.status.code() == Some(CURL_DISBELIEVES)).then_some(CERTIFICATE_EXPIRED);
    Seen::Refused { alert: openssl_alert(&words).or(mistaken), reason: None, words }
}

/// Our client, with one call. Those with certificates that have ended or not begun have a clock by
/// which they are good, as ours refuses to start with them otherwise.
async fn own(target: &Target, kind: Kind, files: Option<&Files>) -> Seen {
    let clock = match kind {
        Kind::Expired => Clock::manual(date_time_ymd(2020, 6, 1)),
        Kind::NotYetValid => Clock::manual(date_time_ymd(2195, 6, 1)),
        Kind::Nothing
        | Kind::Good
        | Kind::ByIntermediate
        | Kind::Revoked
        | Kind::ByRevokedIntermediate
        | Kind::OtherAuthority
        | Kind::Namesake
        | Kind::WrongPurpose => Clock::System,
    };
    let tls = match files {
        Some(files) => {
            let mut settings = TlsSettings::new(&files.certificate, &files.key, &target.ca);
            settings.allow_development = true;
            let tls = TlsReloader::load_for(&settings, Application::Grpc, clock);
            tls.map(ClientTls::from)
        }
        None => {
            let mut trust = TrustSettings::new(&target.ca);
            trust.allow_development = true;
            ClientTls::without_certificate(&trust)
        }
    };
    let tls = tls.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    served_by(&format!("https://{}", target.address), tls).await
}

/// What a call of ours at this address comes to.
pub(crate) async fn served_by(url: &str, tls: ClientTls) -> Seen {
    let options =
        ConnectOptions { connect_timeout: Duration::from_secs(30), ..ConnectOptions::default() };
    let channel = connect_channel(url, tls, options).expect("an address");
    match raw::call(&channel, "/sso.v1.System/GetServerStatus", Vec::new()).await {
        Ok(_) => Seen::Served,
        // The answer of the service to somebody who shows neither a certificate nor a token.
        Err(status) if is_unknown(&status) => Seen::Served,
        Err(status) => Seen::Refused {
            alert: None,
            reason: tls_reason(&status).map(|reason| reason.as_str()),
            words: transport_reason(&status).unwrap_or_else(|| format!("{status:?}")),
        },
    }
}

fn is_unknown(status: &tonic::Status) -> bool {
    let refusal = sso_proto::Refusal::from_status(status);
    refusal.is_some_and(|refusal| refusal.reason == sso_proto::Reason::NotAuthenticated)
}

/// The alert in what OpenSSL says: the low digits of `error:0A000414:…` are its number and 1000.
fn openssl_alert(words: &str) -> Option<u8> {
    let code = words.split("error:").nth(1)?.get(..8)?;
    let reason = u32::from_str_radix(code, 16).ok()? & 0x7f_ffff;
    u8::try_from(reason.checked_sub(OPENSSL_ALERTS)?).ok()
}

#[test]
fn alerts_are_read_from_the_words_of_openssl() {
    let curl = "curl: (56) OpenSSL SSL_read: error:0A00045C:SSL routines::tlsv13 alert certificate \
                required, errno 0";
    assert_eq!(openssl_alert(curl), Some(116));
    assert_eq!(openssl_alert("40:error:0A000414:SSL routines:x:SSL alert number 44"), Some(44));
    assert_eq!(openssl_alert("error:0A000126:SSL routines::unexpected eof while reading"), None);
    assert_eq!(openssl_alert("curl: (7) connection refused"), None);
}
