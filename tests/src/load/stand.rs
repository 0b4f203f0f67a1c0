//! What is measured: a system of the real programs with its database, its applications and its callers.

use std::{fs, path::Path};

use prost::Message;
use sso_client::{
    certificates::{Authority, Request, Role},
    development::{Options, Programs, Timing},
};
use sso_core::{clock::Clock, connector::ClientTls, key_ring::KeyRing, tls::TlsSettings};
use sso_master::{keystore::Keystore, serve, settings::Settings};
use sso_proto::v1;
use time::Duration;
use tokio::runtime::Runtime;

use super::{
    accounting::{Children, Group},
    fill,
    round::{DATABASE, GENERATOR, SERVER},
};
use crate::{
    postgres, raw,
    system::{Database, System},
};

/// The application with configurations `C0000000`, `C0000001`, …
pub const STORE: &str = "Store";
/// The individual application with mappings of `DEV\U0000000` to `E0000000`, …, and of every caller.
pub const OWN: &str = "Own";
/// The same for tickets that are redeemed once, with fewer mappings.
pub const ONCE: &str = "Once";
/// The host group application with external users `E0000000`, …, who all are [`WINDOWS_ACCOUNT`].
pub const HOSTED: &str = "Hosted";
/// The account of [`HOSTED`].
pub const WINDOWS_ACCOUNT: &str = "DEV\\user";
/// The field that is sealed.
pub const FIELD: &str = "Secret";
/// How many mappings [`ONCE`] has.
pub const ONCE_MAPPINGS: u64 = 1000;

/// So many accounts are in the group of users: tickets of no more accounts than these are redeemed, whatever
/// the number of mappings.
pub const MEMBERS: u64 = 10_000;

/// Callers of each kind. One account may have a few hundred requests in work, so that many connections
/// are those of several.
const ACCOUNTS: usize = 48;
/// Those who read what is theirs.
const USERS: &str = "load";
/// Trusted hosts that also administer the applications, and use them.
const AGENTS: &str = "agent";

/// Where the data go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    Sqlite,
    /// A PostgreSQL server of our own, with durable commits.
    Postgresql,
}

impl Kind {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgresql => "postgresql",
        }
    }
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where the data go.
    pub database: Kind,
    /// The folder of the programs; `None` = those beside this one.
    pub programs: Option<std::path::PathBuf>,
    /// How many configurations, and how many mappings.
    pub mappings: u64,
    /// Bytes of a secret.
    pub value: usize,
    /// The applications that get so many.
    pub filled: Vec<&'static str>,
}

/// A running system, ready to be asked.
pub struct Stand {
    /// The programs.
    pub system: System,
    /// What was wanted.
    pub wanted: Wanted,
    /// The keys that values are sealed with.
    pub keys: KeyRing,
    database: Option<postgres::Server>,
    runtime: Runtime,
}

impl Stand {
    /// Starts everything; `None` where the database is not installed here.
    ///
    /// # Panics
    /// When something does not start, or refuses what is set up.
    #[must_use]
    pub fn start(wanted: Wanted) -> Option<Self> {
        let (database, server) = match wanted.database {
            Kind::Sqlite => (Database::Sqlite, None),
            Kind::Postgresql => {
                let options = postgres::Options { fsync: true, ..postgres::Options::default() };
                let server = postgres::Server::start(options)?;
                (Database::Postgres(server.database()), Some(server))
            }
        };
        let programs = match &wanted.programs {
            Some(folder) => Programs::in_folder(folder).expect("the programs"),
            None => Programs::beside_this_one().expect("the programs beside this one"),
        };
        let options = Options { timing: Timing::default(), ..Options::default() };
        let mut system = System::prepare_as(database, options, programs);
        make_callers(&system);
        system.start_master();
        system.start_server(1);
        let runtime = Runtime::new().expect("a runtime");
        let keys = keys(&system);
        let stand = Self { system, wanted, keys, database: server, runtime };
        stand.runtime.block_on(stand.set_up());
        stand.runtime.block_on(fill::fill(&stand));
        Some(stand)
    }

    /// Runs something that needs a runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// The address of the server.
    #[must_use]
    pub fn url(&self) -> String {
        self.system.installation().server_address(1).expect("a server")
    }

    /// The certificates of the users.
    #[must_use]
    pub fn users(&self) -> Vec<ClientTls> {
        accounts(USERS).map(|name| self.caller(&name)).collect()
    }

    /// The certificates of the trusted hosts.
    #[must_use]
    pub fn agents(&self) -> Vec<ClientTls> {
        accounts(AGENTS).map(|name| self.caller(&name)).collect()
    }

    /// The certificate of this name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn caller(&self, name: &str) -> ClientTls {
        let installation = self.system.installation();
        let settings = TlsSettings {
            allow_development: true,
            ..TlsSettings::new(
                installation.tls_file(&format!("{name}.crt")),
                installation.tls_file(&format!("{name}.key")),
                installation.tls_file("ca.crt"),
            )
        };
        ClientTls::load(&settings).expect("the certificates of a caller")
    }

    /// The processes whose time is counted; `server` is who answers.
    pub fn groups(&mut self, server: u32) -> Vec<Group> {
        let own = Group::of(SERVER, server);
        let others = [self.system.server(1).id(), self.system.master().id()];
        let others = others.into_iter().filter(|id| *id != server).collect();
        let mut groups = vec![
            own,
            Group { name: "others".to_owned(), processes: others, ..Group::default() },
            // Programs of others that drive their own servers end with their rounds.
            Group { children: Children::Ended, ..Group::of(GENERATOR, std::process::id()) },
        ];
        if let Some(id) = self.database.as_ref().and_then(postgres::Server::id) {
            groups.push(Group::with_children(DATABASE, id));
        }
        groups
    }

    /// Asks one method as somebody of `sso dev`.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn ask<A: Message + Default>(
        &self,
        who: &str,
        method: &str,
        message: impl Message,
    ) -> A {
        let channel = raw::channel(&self.system, 1, who);
        let path = format!("/sso.v1.{method}");
        let answer = raw::call(&channel, &path, message.encode_to_vec()).await;
        A::decode(&answer.unwrap_or_else(|status| panic!("{method}: {status:?}"))[..])
            .expect("an answer")
    }

    async fn set_up(&self) {
        let info = v1::GlobalInfo {
            tickets_allowed: true,
            host_initiated_allowed: true,
            trusted_hosts: vec!["DEV\\Integration Hosts".into()],
            ticket_timeout: 1440,
            ..Default::default()
        };
        let paths =
            ["tickets_allowed", "host_initiated_allowed", "trusted_hosts", "ticket_timeout"];
        let update_mask = Some(prost_types::FieldMask { paths: paths.map(str::to_owned).to_vec() });
        let message = v1::UpdateGlobalInfoRequest { global_info: Some(info), update_mask };
        let _: v1::UpdateGlobalInfoResponse =
            self.ask("admin", "System/UpdateGlobalInfo", message).await;
        for application in [store(), individual(OWN), one_time(), host_group()] {
            let message = v1::CreateApplicationRequest { application: Some(application) };
            let _: v1::CreateApplicationResponse =
                self.ask("admin", "Applications/Create", message).await;
        }
        for (number, name) in accounts(USERS).chain(accounts(AGENTS)).enumerate() {
            let mapping = v1::Mapping {
                application: OWN.into(),
                account: format!("DEV\\{name}"),
                external_user: format!("CALLER{number:02}"),
                ..Default::default()
            };
            let values = vec!["s".repeat(self.wanted.value)];
            let credentials = Some(v1::CredentialValues { values });
            let message =
                v1::CreateMappingRequest { mapping: Some(mapping), credentials, enable: true };
            let _: v1::CreateMappingResponse = self.ask("admin", "Mappings/Create", message).await;
        }
    }
}

fn accounts(kind: &'static str) -> impl Iterator<Item = String> {
    (1..=ACCOUNTS).map(move |number| format!("{kind}-{number:02}"))
}

/// Certificates and groups, before anything runs.
fn make_callers(system: &System) {
    let installation = system.installation();
    let ca = installation.tls_file("ca.crt");
    let tls = ca.parent().expect("a folder");
    let authority = Authority::load(tls).expect("the authority");
    let now = Clock::System.now();
    for name in accounts(USERS).chain(accounts(AGENTS)) {
        let mut request = Request::new(&*name, Role::Client, Duration::days(30));
        request.account = Some(format!(r"DEV\{name}"));
        let issued = authority.issue(&request, now).expect("a certificate");
        let _ = issued.write(tls, &name, true).expect("written");
    }
    add_members(&system.folder().join("groups.toml"));
}

fn add_members(path: &Path) {
    let text = fs::read_to_string(path).expect("the groups");
    let mut file: toml::Table = text.parse().expect("the groups");
    let groups = file.get_mut("groups").and_then(toml::Value::as_table_mut).expect("groups");
    let mut add = |group: &str, kind: &'static str| {
        let members = groups.get_mut(group).and_then(toml::Value::as_array_mut).expect("a group");
        members.extend(accounts(kind).map(|name| toml::Value::from(format!("DEV\\{name}"))));
    };
    add("DEV\\Application Users", USERS);
    add("DEV\\Application Users", AGENTS);
    add("DEV\\Application Administrators", AGENTS);
    add("DEV\\Integration Hosts", AGENTS);
    let users = groups.get_mut("DEV\\Application Users").and_then(toml::Value::as_array_mut);
    users.expect("a group").extend((0..MEMBERS).map(|number| fill::account(number).into()));
    fs::write(path, toml::to_string(&file).expect("TOML")).expect("written");
}

fn individual(name: &str) -> v1::Application {
    let field = |ordinal, label: &str, masked| v1::Field {
        ordinal,
        label: label.into(),
        masked,
        ..Default::default()
    };
    v1::Application {
        name: name.into(),
        r#type: v1::ApplicationType::Individual.into(),
        user_accounts: vec!["DEV\\Application Users".into()],
        administrator_accounts: vec!["DEV\\Application Administrators".into()],
        fields: vec![field(0, "User", false), field(1, FIELD, true)],
        allow_tickets: Some(true),
        host_initiated: Some(true),
        enabled: true,
        ..Default::default()
    }
}

fn one_time() -> v1::Application {
    v1::Application { one_time_tickets: Some(true), ..individual(ONCE) }
}

fn host_group() -> v1::Application {
    v1::Application {
        r#type: v1::ApplicationType::HostGroup.into(),
        user_accounts: Vec::new(),
        windows_account: WINDOWS_ACCOUNT.into(),
        allow_tickets: None,
        host_initiated: None,
        ..individual(HOSTED)
    }
}

fn store() -> v1::Application {
    v1::Application {
        r#type: v1::ApplicationType::ConfigStore.into(),
        allow_tickets: None,
        host_initiated: None,
        ..individual(STORE)
    }
}

/// The keys of the master of a system.
fn keys(system: &System) -> KeyRing {
    let settings = Settings::load(&system.installation().master_settings()).expect("settings");
    let keystore = Keystore::read(&settings.keystore).expect("a keystore");
    serve::open(&settings, &keystore).expect("unlocked").ring
}
