//! The server that is asked: a real one, whose TLS settings and revocation lists a test chooses, and
//! whose log and metrics it reads.

use std::{
    collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, process::Command, time::Duration,
};

use rcgen::SerialNumber;
use rustix::process::{Pid, Signal, kill_process};
use sso_core::settings::write_private;
use sso_tests::{
    raw,
    system::{Database, System, Timing},
};
use toml::{Table, Value};

use super::{
    oracle::{Lists, Policy, Variant, Version},
    peers::Target,
    zoo::{Authority, Kind, Zoo, always, once, program, replace},
};

/// How long the log may lag behind what peers see.
const SOON: Duration = Duration::from_secs(30);
const SERVER: usize = 1;
/// The metric that counts handshakes, and those where a certificate was let through.
pub(crate) const HANDSHAKES: &str = "sso_tls_handshakes_total";
pub(crate) const SOFT_FAILURES: &str = "sso_tls_revocation_soft_failures_total";

/// Some keys of somebody who issues tokens, and the rule for them.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
const TOKENS: &str = r#"
issuer = "https://id.example"
audiences = ["sso"]
jwks_file = "jwks.json"
domain = "IDP"
"#;

/// A refused connection in the log: reason, thumbprint and serial number; empty where no certificate
/// was shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) thumbprint: String,
    pub(crate) serial: String,
}

/// One server that trusts the authorities of a zoo beside that of its own system. The lists of its own
/// system are always good: the zoo alone is the matter.
pub(crate) struct Subject {
    pub(crate) system: System,
    pub(crate) zoo: Zoo,
    /// The authority of the system itself.
    pub(crate) own: Authority,
    running: bool,
}

impl Subject {
    /// With a running master; the server is not started.
    pub(crate) fn prepare() -> Self {
        let mut system = System::prepare(Database::Sqlite, 1, Timing::default());
        let file = |name: &str| system.installation().tls_file(name);
        let own = Authority::load(&file("ca.crt"), &file("ca.key"));
        let zoo = Zoo::of_clients();
        let tls = file("");
        // Clients with clocks of their own have to find it good, too.
        own.issue(program("sso-server://sso-server-1")).write(&tls, "sso-server-1");
        replace(&file("trusted.crt"), (own.pem().to_owned() + zoo.root.pem()).as_bytes());
        system.start_master();
        Self { system, zoo, own, running: false }
    }

    /// Starts the server, again if it runs, with these keys in section `[tls]` besides those that name
    /// its certificate and whom it trusts.
    pub(crate) fn start(&mut self, more: Table) {
        if self.running {
            self.system.stop_server(SERVER);
        }
        self.write_settings(more);
        self.system.start_server(SERVER);
        self.running = true;
    }

    fn write_settings(&self, more: Table) {
        self.edit_settings(|settings| {
            let mut tls = Table::new();
            for (key, value) in [
                ("certificate", "tls/sso-server-1.crt"),
                ("key", "tls/sso-server-1.key"),
                ("ca", "tls/trusted.crt"),
            ] {
                tls.insert(key.into(), value.into());
            }
            tls.insert("allow_development".into(), true.into());
            tls.extend(more);
            settings.insert("tls".into(), tls.into());
            let telemetry = Table::from_iter([("log_format".to_owned(), Value::from("json"))]);
            settings.insert("telemetry".into(), telemetry.into());
        });
    }

    fn edit_settings(&self, edit: impl FnOnce(&mut Table)) {
        let path = self.system.installation().server_settings(SERVER);
        let text = fs::read_to_string(&path).expect("settings");
        let mut settings: Table = text.parse().expect("TOML");
        edit(&mut settings);
        fs::write(path, settings.to_string()).expect("written");
    }

    /// What the program says that refuses to start with this key in section `[tls]`.
    pub(crate) fn refused_start(&mut self, key: &str, value: &str) -> String {
        self.write_settings(Table::from_iter([(key.to_owned(), Value::from(value))]));
        let installation = self.system.installation();
        let output = Command::new(&installation.programs().server)
            .args(["run", "--settings"])
            .arg(installation.server_settings(SERVER))
            .output()
            .expect("sso-server starts");
        assert!(!output.status.success(), "{key} = {value:?} is taken");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Starts the server with these; its lists have to be written before.
    pub(crate) fn start_variant(&mut self, minimum: Version, policy: Policy) {
        self.start(section(minimum, policy));
    }

    /// Starts the server so that clients may show a token in place of a certificate.
    pub(crate) fn start_with_optional_certificates(&mut self, policy: Policy) {
        let mut tls = section(Version::Tls13, policy);
        tls.insert("client_certificate".into(), "optional".into());
        write_private(&self.system.folder().join("jwks.json"), KEYS.as_bytes(), true)
            .expect("written");
        self.edit_settings(|settings| {
            let token: Table = TOKENS.parse().expect("TOML");
            let identity = settings.get_mut("identity").and_then(Value::as_table_mut);
            identity.expect("identities").insert("token".into(), vec![Value::from(token)].into());
        });
        self.start(tls);
    }

    /// Writes the file of revocation lists.
    pub(crate) fn write_lists(&self, lists: Lists) {
        let text = self.own_list(&[]) + &zoo_lists(&self.zoo, lists);
        replace(&self.lists_file(), text.as_bytes());
    }

    pub(crate) fn lists_file(&self) -> PathBuf {
        self.system.installation().tls_file("lists.crl")
    }

    /// A good list of the authority of the system itself (PEM).
    pub(crate) fn own_list(&self, revoked: &[SerialNumber]) -> String {
        self.own.list(revoked, always()).pem().expect("PEM")
    }

    /// Has the server load its files again, and waits until it did.
    pub(crate) fn reload(&mut self) {
        self.hang_up_until("TLS files reloaded");
    }

    /// Has the server load files again that it must not take, and waits until it says so.
    pub(crate) fn reload_in_vain(&mut self) {
        self.hang_up_until("TLS files are not usable, those loaded before stay in use");
    }

    fn hang_up_until(&mut self, message: &str) {
        let before = self.log_length();
        self.hang_up();
        let began = std::time::Instant::now();
        while !self.log_since(before).iter().any(|line| text(line, "message") == message) {
            let log = || self.system.log_of_server(SERVER).split_off(before);
            assert!(began.elapsed() < SOON, "never {message:?}, but:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends the server SIGHUP.
    pub(crate) fn hang_up(&mut self) {
        hang_up(self.system.server(SERVER).id());
    }

    pub(crate) fn target(&self) -> Target {
        let url = self.system.installation().server_address(SERVER).expect("an address");
        let address = url.strip_prefix("https://").expect("https");
        let address: SocketAddr = address.parse().expect("an address");
        Target { address, ca: self.system.installation().tls_file("ca.crt") }
    }

    /// Where the log ends now.
    pub(crate) fn log_length(&self) -> usize {
        self.system.log_of_server(SERVER).len()
    }

    /// The lines of the log since it had this length.
    pub(crate) fn log_since(&self, length: usize) -> Vec<serde_json::Value> {
        let log = self.system.log_of_server(SERVER);
        let lines = log.get(length..).unwrap_or_default().lines();
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The connections that were refused since the log had this length.
    pub(crate) fn refusals_since(&self, length: usize) -> Vec<Refusal> {
        let refused = |line: &serde_json::Value| {
            let is_one = text(line, "message").contains("TLS connection refused");
            let refusal = Refusal {
                reason: text(line, "reason"),
                thumbprint: text(line, "thumbprint"),
                serial: text(line, "serial"),
            };
            let told = |key| !text(line, key).is_empty();
            if is_one {
                assert!(told("addr") && told("words"), "{line}");
                assert_eq!(told("thumbprint"), told("subject"), "{line}");
            }
            is_one.then_some(refusal)
        };
        self.log_since(length).iter().filter_map(refused).collect()
    }

    /// The same, as soon as there are so many.
    pub(crate) fn refusals(&self, since: usize, count: usize) -> Vec<Refusal> {
        let began = std::time::Instant::now();
        loop {
            let found = self.refusals_since(since);
            if found.len() >= count || began.elapsed() > SOON {
                return found;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Every series of a metric with its value.
    pub(crate) fn metric(&self, name: &str) -> BTreeMap<String, f64> {
        let page = raw::page(self.system.operations(SERVER), "metrics");
        let page = String::from_utf8_lossy(&page);
        let series = page.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let is_it =
                series.strip_prefix(name).is_some_and(|it| it.is_empty() || it.starts_with('{'));
            is_it.then(|| (series.to_owned(), value.parse().expect("a number")))
        });
        series.collect()
    }

    /// The number of a counter's series with these words in their labels.
    pub(crate) fn count(&self, name: &str, words: &[&str]) -> u64 {
        let metric = self.metric(name);
        let fits =
            |series: &&String| words.iter().all(|word| series.contains(&format!("\"{word}\"")));
        let sum: f64 = metric.keys().filter(fits).filter_map(|series| metric.get(series)).sum();
        sum as u64
    }
}

/// The keys of section `[tls]` for these.
fn section(minimum: Version, policy: Policy) -> Table {
    let minimum = if minimum == Version::Tls12 { "1.2" } else { "1.3" };
    let policy = match policy {
        Policy::HardFail => "hard-fail",
        Policy::SoftFail => "soft-fail",
        Policy::Off => "off",
    };
    let keys = [("minimum_version", minimum), ("revocation", policy), ("crl", "tls/lists.crl")];
    keys.map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect()
}

/// Sends SIGHUP.
pub(crate) fn hang_up(id: u32) {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, Signal::HUP).expect("SIGHUP");
}

/// A text of a line of the log; empty where there is none.
pub(crate) fn text(line: &serde_json::Value, key: &str) -> String {
    line.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

/// The revocation lists of the zoo (PEM).
pub(crate) fn zoo_lists(zoo: &Zoo, lists: Lists) -> String {
    let time = if lists == Lists::Expired { once() } else { always() };
    let revoked = [zoo.serials(&[Kind::Revoked]), vec![zoo.revoked_intermediate.serial()]].concat();
    let wronged = zoo.serials(&[Kind::Good, Kind::ByIntermediate]);
    let made = match lists {
        Lists::Good | Lists::Expired => vec![
            zoo.root.list(&revoked, time),
            zoo.intermediate.list(&[], time),
            zoo.revoked_intermediate.list(&[], time),
        ],
        Lists::Missing => Vec::new(),
        Lists::OtherIssuer => vec![zoo.other.list(&revoked, time)],
        Lists::Namesake => zoo.namesakes().map(|namesake| namesake.list(&wronged, time)).collect(),
    };
    made.iter().map(|list| list.pem().expect("PEM")).collect()
}

impl Variant {
    /// Every variant, by how the server has to be started for it.
    pub(crate) fn all() -> impl Iterator<Item = (Version, Policy)> {
        Self::MINIMA.into_iter().flat_map(|minimum| Self::POLICIES.map(|policy| (minimum, policy)))
    }
}
