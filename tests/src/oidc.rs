//! A real OpenID provider (the npm package oidc-provider, see `tests/oidc`), started and stopped by the
//! tests, with a certificate of an authority of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use sso_client::certificates::{Authority, Request, Role};
use tempfile::TempDir;

/// The folder with the installed package; `None`, with a word about it, where there is none and none is
/// required.
///
/// # Panics
/// Where one is required.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "tests/run says where the package is")]
pub fn package() -> Option<PathBuf> {
    let folder = std::env::var_os("SSO_TEST_OIDC").map(PathBuf::from);
    if folder.is_none() {
        let required = std::env::var_os("SSO_REQUIRE_OIDC").is_some();
        assert!(!required, "SSO_TEST_OIDC is not set: start the tests by tests/run");
        println!("skipped: SSO_TEST_OIDC is not set; tests/run installs the provider");
    }
    folder
}

/// A running provider; killed with the value.
pub struct Provider {
    package: PathBuf,
    folder: TempDir,
    issuer: String,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Provider {
    /// Starts one on a free port; `None` where there is no package.
    #[must_use]
    pub fn start() -> Option<Self> {
        let package = package()?;
        let folder = tempfile::tempdir().expect("a folder");
        let lifetime = time::Duration::days(2);
        let now = sso_core::clock::Clock::System.now();
        let authority = Authority::create("identity", lifetime, false, now).expect("an authority");
        authority.write(folder.path(), false).expect("written");
        let addresses = vec![std::net::Ipv4Addr::LOCALHOST.into()];
        let lifetime = time::Duration::DAY;
        let request = Request { addresses, ..Request::new("provider", Role::Server, lifetime) };
        let issued = authority.issue(&request, now).expect("a certificate");
        let _ = issued.write(folder.path(), "provider", false).expect("written");
        let (child, orders, answers) = run(&package, folder.path(), "0");
        let issuer = String::new();
        let mut provider = Self { package, folder, issuer, child, orders, answers };
        provider.issuer = provider.answer("issuer");
        Some(provider)
    }

    fn begin(&mut self, port: &str) {
        (self.child, self.orders, self.answers) = run(&self.package, self.folder.path(), port);
        assert_eq!(self.answer("issuer"), self.issuer);
    }

    /// Starts it again at the same address, with another key.
    pub fn restart(&mut self) {
        self.kill();
        let port = self.issuer.rsplit_once(':').expect("a port").1.to_owned();
        self.begin(&port);
    }

    /// What it calls itself in tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The file of the authority that its certificate comes from.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Makes it sign with another key from now on, and forget the one before.
    pub fn rotate(&mut self) {
        self.orders.write_all(b"rotate\n").expect("the provider listens");
        let _ = self.answer("rotated");
    }

    /// Stops it without a word.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// A token as a client gets it: of the program `service`, or of a user who logged in.
    #[must_use]
    pub fn token(&self, who: &str) -> String {
        self.token_for(who, "urn:sso")
    }

    /// As [`Provider::token`], meant for somebody else.
    #[must_use]
    pub fn token_for(&self, who: &str, audience: &str) -> String {
        let output = Command::new("node")
            .arg(self.package.join("token.mjs"))
            .args([&self.issuer, who, audience])
            .env("NODE_EXTRA_CA_CERTS", self.ca())
            .output()
            .expect("node starts");
        assert!(output.status.success(), "{}\n{}", show(&output.stderr), self.log());
        show(&output.stdout)
    }

    fn answer(&mut self, key: &str) -> String {
        let mut line = String::new();
        // The package prints notices on standard output too.
        while !line.starts_with('{') {
            line.clear();
            let read = self.answers.read_line(&mut line).expect("standard output");
            assert!(read > 0, "the provider ended: {}", self.log());
        }
        let answer: serde_json::Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error} in {line:?}\n{}", self.log()));
        answer
            .get(key)
            .and_then(|value| value.as_str())
            .unwrap_or_else(|| panic!("no {key} in {line}"))
            .to_owned()
    }

    fn log(&self) -> String {
        let log: &Path = &self.folder.path().join("provider.log");
        fs::read_to_string(log).unwrap_or_default()
    }
}

fn run(package: &Path, folder: &Path, port: &str) -> (Child, ChildStdin, BufReader<ChildStdout>) {
    let mut child = Command::new("node")
        .arg(package.join("server.mjs"))
        .args([folder.join("provider.crt"), folder.join("provider.key")])
        .arg(port)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(folder.join("provider.log")).expect("a log"))
        .spawn()
        .expect("node starts");
    let orders = child.stdin.take().expect("standard input");
    let answers = BufReader::new(child.stdout.take().expect("standard output"));
    (child, orders, answers)
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
