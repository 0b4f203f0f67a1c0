//! A secret store, a gateway and a host, set up and ready to be killed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::StatusCode;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use sso_client::{
    certificates::{Authority, Request, Role},
    development::{Options, ReservedPort, TOKEN_AUDIENCE, TOKEN_DOMAIN, TOKEN_ISSUER},
};
use sso_core::{clock::Clock, peer::PeerCertificate, settings::write_private};
use sso_tests::system::{Database, System, eventually};
use tempfile::TempDir;

use crate::peers::{Bank, Portal, client, read};

/// Long, as many tests share few cores.
pub(crate) const SOON: Duration = Duration::from_secs(180);
/// The application that tickets are redeemed for.
pub(crate) const APPLICATION: &str = "PaymentGateway";
/// The merchant that the users speak for, and its password.
pub(crate) const MERCHANT: &str = "agency-north";
pub(crate) const PASSWORD: &str = "merchant-canary-81c2";

const PORTS: &str = "PaymentHost.Ports";
const LOCATIONS: &str = "PaymentHost.Locations";
const PARTIES: &str = "PaymentHost.Parties";
const AGREEMENTS: &str = "PaymentHost.Agreements";

/// One of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Gateway,
    Host,
}

/// Where the programs listen.
struct Ports {
    gateway: ReservedPort,
    bank: ReservedPort,
    gateway_operations: ReservedPort,
    bills: ReservedPort,
    notifications: ReservedPort,
    host_operations: ReservedPort,
}

pub(crate) struct Stage {
    pub(crate) system: System,
    folder: TempDir,
    ports: Ports,
    gateway: Option<Child>,
    host: Option<Child>,
    issuer: EncodingKey,
    /// As the portal.
    portal: reqwest::Client,
    plain: reqwest::Client,
}

impl Stage {
    /// Everything runs and is ready.
    pub(crate) async fn start() -> Self {
        let mut stage = Self::prepare();
        stage.begin(Program::Gateway);
        stage.begin(Program::Host);
        stage.ready(Program::Gateway).await;
        stage.ready(Program::Host).await;
        stage
    }

    fn prepare() -> Self {
        sso_core::tls::install_provider();
        let options = Options { tokens: true, ..Options::default() };
        let mut system = System::prepare_with(Database::Sqlite, options);
        system.start_master();
        system.start_server(1);
        let issuer = fs::read(system.folder().join("tokens/issuer.key")).expect("the issuer's key");
        let folder = tempfile::Builder::new().prefix("sso-test-").tempdir().expect("a folder");
        let port = || ReservedPort::choose().expect("a free port");
        let ports = Ports {
            gateway: port(),
            bank: port(),
            gateway_operations: port(),
            bills: port(),
            notifications: port(),
            host_operations: port(),
        };
        certificates(&folder.path().join("certificates"));
        let portal = client(&folder.path().join("certificates"), "portal");
        let stage = Self {
            system,
            ports,
            gateway: None,
            host: None,
            issuer: EncodingKey::from_ed_pem(&issuer).expect("an Ed25519 key"),
            portal,
            plain: reqwest::Client::new(),
            folder,
        };
        let key = stage.set_up_gateway();
        stage.set_up_store();
        stage.set_up_ports(&key);
        stage.set_up_host();
        stage
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        write_private(&path, text.as_bytes(), true).expect("written");
        path
    }

    /// The gateway's settings, key and merchant; its public key.
    fn set_up_gateway(&self) -> String {
        let settings = format!(
            "version = 1\nname = 'gateway.example'\ndatabase = 'gateway.db'\n\
             listen = '127.0.0.1:{}'\nbank_listen = '127.0.0.1:{}'\noperations_listen = '127.0.0.1:{}'\n\
             signing_key = 'signing.key'\n\
             [notify]\ntimeout_seconds = 10\nretry_first_ms = 50\nretry_most_seconds = 1\n\
             [tls]\ncertificate = 'certificates/gateway.crt'\nkey = 'certificates/gateway.key'\n\
             ca = 'certificates/ca.crt'\n\
             [process]\nstop_with_parent = false\n",
            self.ports.gateway.number(),
            self.ports.bank.number(),
            self.ports.gateway_operations.number()
        );
        self.write("gateway.toml", &settings);
        let key =
            self.run(Command::new(GATEWAY).arg("key").arg("--out").arg(self.file("signing.key")));
        self.set_merchant("basic", PASSWORD);
        key.trim().to_owned()
    }

    /// The merchant proves who it is by this scheme, and with this value.
    pub(crate) fn set_merchant(&self, scheme: &str, value: &str) {
        let value = self.write("merchant-value", value);
        let url = format!("https://127.0.0.1:{}/paid", self.ports.notifications.number());
        let mut command = Command::new(GATEWAY);
        command.args(["merchant", "--name", MERCHANT, "--client", "host", "--scheme", scheme]);
        command.arg("--database").arg(self.file("gateway.db"));
        command.arg("--value-file").arg(value).args(["--notify-url", &url]);
        let _ = self.run(&mut command);
    }

    /// Tickets are allowed; `WEB\ann` is mapped to the merchant.
    fn set_up_store(&self) {
        let sso = |profile: &str, arguments: &[&str]| {
            let _ = self.system.sso_ok(profile, arguments);
        };
        sso("admin", &["system", "update", "--tickets-allowed", "yes"]);
        let users = format!("{};{}", account("ann"), account("bob"));
        let admins = r"DEV\Integration Hosts;DEV\Application Administrators";
        sso(
            "affiliate-admin",
            &[
                "app",
                "create",
                APPLICATION,
                "--type",
                "individual",
                "--first-field",
                "Merchant",
                "--field",
                "Password:masked",
                "--users",
                &users,
                "--admins",
                admins,
                "--enable",
            ],
        );
        let minutes = "60";
        sso(
            "admin",
            &["app", "update", APPLICATION, "--allow-tickets", "yes", "--ticket-timeout", minutes],
        );
        self.map("ann", PASSWORD);
    }

    /// Maps a user to the merchant, with this password.
    pub(crate) fn map(&self, user: &str, password: &str) {
        let values = self.write("values.json", &json!([password]).to_string());
        let account = account(user);
        let values = values.to_str().expect("UTF-8");
        let arguments =
            ["mapping", "create", APPLICATION, &account, MERCHANT, "--values", values, "--enable"];
        let _ = self.system.sso_ok("app-admin", &arguments);
    }

    pub(crate) fn unmap(&self, user: &str) {
        let arguments = ["mapping", "delete", APPLICATION, &account(user), "--yes"];
        let _ = self.system.sso_ok("app-admin", &arguments);
    }

    fn set_up_ports(&self, key: &str) {
        use payment_gateway::host::Agreement;
        use sso_client::integration::{ReceiveLocation, SendPort};
        let folder = self.file("certificates");
        let create = |name: &str, fields: &[&str]| {
            let mut arguments = vec!["app", "create", name, "--enable"];
            arguments.extend(["--users", r"DEV\Integration Hosts"]);
            arguments.extend(["--admins", r"DEV\Application Administrators"]);
            arguments.extend(fields.iter().flat_map(|field| ["--field", field]));
            let _ = self.system.sso_ok("affiliate-admin", &arguments);
        };
        create(PORTS, SendPort::FIELDS);
        create(LOCATIONS, ReceiveLocation::FIELDS);
        create(PARTIES, &["portal", "gateway", "stranger"]);
        create(AGREEMENTS, Agreement::FIELDS);
        let upload = [
            ("Address", format!("https://127.0.0.1:{}", self.ports.gateway.number())),
            ("CertificateThumbprint", thumbprint(&folder, "host")),
            ("AuthorityFile", "ca.crt".into()),
            ("AffiliateApplication", APPLICATION.into()),
            ("RetryFirstSeconds", "0.1".into()),
            ("RetryMostSeconds", "1".into()),
        ];
        self.configure(PORTS, "upload", SendPort::FIELDS, &upload);
        for (identifier, port, path) in [
            ("bills", self.ports.bills.number(), "/bills"),
            ("notifications", self.ports.notifications.number(), "/paid"),
        ] {
            let location = [
                ("Listen", format!("127.0.0.1:{port}")),
                ("Path", path.into()),
                ("CertificateThumbprint", thumbprint(&folder, "host")),
                ("AuthorityFile", "ca.crt".into()),
            ];
            self.configure(LOCATIONS, identifier, ReceiveLocation::FIELDS, &location);
        }
        let parties = ["portal", "gateway", "stranger"];
        let thumbprints = parties.map(|name| (name, thumbprint(&folder, name)));
        self.configure(PARTIES, "parties", &parties, &thumbprints);
        let agreement = [
            ("GatewayParty", "gateway".into()),
            ("GatewayName", "gateway.example".into()),
            ("GatewayKey", key.into()),
            ("Authentication", "basic".into()),
            ("PortalParties", "portal".into()),
        ];
        self.configure(AGREEMENTS, "agreement", Agreement::FIELDS, &agreement);
    }

    /// Writes a configuration: the values given, every other field empty.
    fn configure(
        &self,
        application: &str,
        identifier: &str,
        fields: &[&str],
        values: &[(&str, String)],
    ) {
        let mut all: serde_json::Map<_, _> =
            fields.iter().map(|field| ((*field).to_owned(), json!(""))).collect();
        all.extend(values.iter().map(|(field, value)| ((*field).to_owned(), json!(value))));
        self.set(application, identifier, &Value::Object(all));
    }

    fn set(&self, application: &str, identifier: &str, values: &Value) {
        let path = self.write("configuration.json", &values.to_string());
        let path = path.to_str().expect("UTF-8");
        let arguments = ["config", "set", application, identifier, "--values", path];
        let _ = self.system.sso_ok("app-admin", &arguments);
    }

    /// Changes a value of the send port.
    pub(crate) fn change_upload(&self, field: &str, value: &str) {
        self.set(PORTS, "upload", &json!({ field: value }));
    }

    pub(crate) fn change_agreement(&self, field: &str, value: &str) {
        self.set(AGREEMENTS, "agreement", &json!({ field: value }));
    }

    pub(crate) fn gateway_address(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.gateway.number())
    }

    fn set_up_host(&self) {
        let settings = format!(
            "version = 1\ndatabase = 'host.db'\ncertificates = 'certificates'\n\
             applications = ['{APPLICATION}']\n\
             operations_listen = '127.0.0.1:{}'\nprofile = 'host'\n\
             [places]\nupload = '{PORTS}/upload'\nbills = '{LOCATIONS}/bills'\n\
             notifications = '{LOCATIONS}/notifications'\nparties = '{PARTIES}/parties'\n\
             agreement = '{AGREEMENTS}/agreement'\n",
            self.ports.host_operations.number()
        );
        self.write("host.toml", &settings);
    }

    fn run(&self, command: &mut Command) -> String {
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn slot(&mut self, program: Program) -> &mut Option<Child> {
        match program {
            Program::Gateway => &mut self.gateway,
            Program::Host => &mut self.host,
        }
    }

    /// Starts a program, and does not wait for it.
    pub(crate) fn begin(&mut self, program: Program) {
        let (mut command, name) = match program {
            Program::Gateway => {
                let mut command = Command::new(GATEWAY);
                command.args(["run", "--settings"]).arg(self.file("gateway.toml"));
                (command, "gateway.log")
            }
            Program::Host => {
                let mut command = self.system.command_of(Path::new(HOST), "host");
                command.arg("--settings").arg(self.file("host.toml"));
                (command, "host.log")
            }
        };
        let log = File::options().create(true).append(true).open(self.file(name)).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("the program starts");
        assert!(self.slot(program).replace(child).is_none(), "{program:?} runs already");
    }

    /// `kill -9`
    pub(crate) fn kill(&mut self, program: Program) {
        let mut child = self.slot(program).take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("gone");
    }

    /// SIGTERM; the program ends well.
    pub(crate) fn stop(&mut self, program: Program) {
        let mut child = self.slot(program).take().expect("it runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process");
        rustix::process::kill_process(pid, Signal::TERM).expect("asked");
        let status = child.wait().expect("gone");
        assert!(status.success(), "{program:?}: {status}\n{}", self.log(program));
    }

    pub(crate) fn log(&self, program: Program) -> String {
        let name = match program {
            Program::Gateway => "gateway.log",
            Program::Host => "host.log",
        };
        String::from_utf8_lossy(&fs::read(self.file(name)).unwrap_or_default()).into_owned()
    }

    /// Waits until the program is ready.
    pub(crate) async fn ready(&self, program: Program) {
        self.until(&format!("{program:?} is ready"), async || {
            let answer = self.page(program, "readyz").await?;
            answer["ready"].as_bool()?.then_some(())
        })
        .await;
    }

    /// A page for those who operate the program.
    pub(crate) async fn page(&self, program: Program, name: &str) -> Option<Value> {
        let port = match program {
            Program::Gateway => &self.ports.gateway_operations,
            Program::Host => &self.ports.host_operations,
        };
        let url = format!("http://127.0.0.1:{}/{name}", port.number());
        let text = self.plain.get(url).send().await.ok()?.text().await.ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Asks until there is an answer.
    pub(crate) async fn until<T>(&self, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
        let start = tokio::time::Instant::now();
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            let logs = || [Program::Gateway, Program::Host].map(|it| tail(&self.log(it))).concat();
            assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}\n{}", logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A token of this user, good for an hour.
    pub(crate) fn token(&self, user: &str) -> String {
        let now = Clock::System.now().unix_timestamp();
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some("sso-dev".into());
        let claims = json!({
            "iss": TOKEN_ISSUER, "aud": TOKEN_AUDIENCE, "sub": user, "preferred_username": user,
            "iat": now, "exp": now + 3600,
        });
        jsonwebtoken::encode(&header, &claims, &self.issuer).expect("signed")
    }

    /// A ticket of this user.
    pub(crate) fn ticket(&self, user: &str) -> String {
        let token = self.write("token", &self.token(user));
        let token = token.to_str().expect("UTF-8");
        let issued = self.system.sso_ok("host", &["ticket", "issue", "--user-token-file", token]);
        issued.trim().to_owned()
    }

    pub(crate) fn portal(&self) -> Portal {
        let bills = format!("https://127.0.0.1:{}/bills", self.ports.bills.number());
        Portal::new(self.portal.clone(), bills, self.token("ann"))
    }

    pub(crate) fn bank(&self) -> Bank {
        let payments = format!("http://127.0.0.1:{}/payments", self.ports.bank.number());
        Bank::new(self.plain.clone(), payments)
    }

    /// Posts something to the receive location for notifications, as this party.
    pub(crate) async fn notify(&self, name: &str, text: &str) -> (StatusCode, Value) {
        let url = format!("https://127.0.0.1:{}/paid", self.ports.notifications.number());
        let client = client(&self.file("certificates"), name);
        read(client.post(url).body(text.to_owned()).send().await.expect("an answer")).await
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for mut child in [self.gateway.take(), self.host.take()].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for program in [Program::Gateway, Program::Host] {
                println!("the end of the log of {program:?}:\n{}", tail(&self.log(program)));
            }
        }
    }
}

const GATEWAY: &str = env!("CARGO_BIN_EXE_payment-gateway");
const HOST: &str = env!("CARGO_BIN_EXE_payment-host");

pub(crate) fn account(user: &str) -> String {
    format!(r"{TOKEN_DOMAIN}\{user}")
}

/// One authority, and a certificate for each program and party.
fn certificates(folder: &Path) {
    let now = Clock::System.now();
    let authority = Authority::create("Example authority", time::Duration::days(30), false, now);
    let authority = authority.expect("an authority");
    authority.write(folder, false).expect("written");
    for (name, role) in [
        ("gateway", Role::Server),
        ("host", Role::Server),
        ("portal", Role::Client),
        ("stranger", Role::Client),
        ("nobody", Role::Client),
    ] {
        let mut request = Request::new(name, role, time::Duration::days(10));
        if role == Role::Server {
            request.addresses = vec![[127, 0, 0, 1].into()];
        }
        let issued = authority.issue(&request, now).expect("a certificate");
        let _ = issued.write(folder, name, false).expect("written");
    }
}

fn thumbprint(folder: &Path, name: &str) -> String {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let der = CertificateDer::from_pem_file(folder.join(format!("{name}.crt"))).expect("PEM");
    PeerCertificate::parse(&der).expect("a certificate").thumbprint_sha256
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let start = lines.len().saturating_sub(30);
    lines[start..].join("\n") + "\n"
}

/// Waits in a thread of its own.
pub(crate) fn log_says(stage: &Stage, program: Program, words: &str) {
    eventually(words, SOON, || stage.log(program).contains(words).then_some(()));
}
