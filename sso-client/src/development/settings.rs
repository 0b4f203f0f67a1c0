//! The settings files of a throw-away system.

use std::fmt::Write as _;

use super::{
    installation::Timing,
    material::{ACCOUNTS, DOMAIN, profiles},
};

/// Ports of one program on the loopback address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) service: u16,
    pub(super) operations: u16,
}

/// What a server is told of its database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Database<'d> {
    pub(super) url: &'d str,
    pub(super) password_file: Option<&'d str>,
}

const HEADER: &str = "# Written by `sso dev` at every start; changes are lost.\nversion = 1\n";

/// `sso-master.toml`.
pub(super) fn master(name: &str, ports: Ports, servers: &[String], timing: &Timing) -> String {
    let mut text = HEADER.to_owned();
    let _ = write!(
        text,
        "name = {}\n\
         keystore = \"keystore.json\"\n\
         listen = \"127.0.0.1:{}\"\n\
         operations_listen = \"127.0.0.1:{}\"\n\
         heartbeat_interval_ms = {}\n",
        quoted(name),
        ports.service,
        ports.operations,
        timing.heartbeat_interval_ms
    );
    text.push_str(&tls(name));
    text.push_str(
        "\n[protector]\nkind = \"passphrase\"\npassphrase_file = \"master.passphrase\"\n",
    );
    for server in servers {
        let rule = format!("sso-server://{server}");
        let _ = write!(
            text,
            "\n[[server]]\nname = {}\ncertificate = {{ san_uri = {} }}\n",
            quoted(server),
            quoted(&rule)
        );
    }
    text.push_str(&process());
    text
}

/// `sso-server-N.toml`.
pub(super) fn server(
    name: &str,
    ports: Ports,
    master: Ports,
    database: &Database<'_>,
    timing: &Timing,
) -> String {
    let mut text = HEADER.to_owned();
    let _ = write!(
        text,
        "name = {}\n\
         listen = \"127.0.0.1:{}\"\n\
         operations_listen = \"127.0.0.1:{}\"\n\
         reflection = true\n",
        quoted(name),
        ports.service,
        ports.operations,
    );
    text.push_str(&tls(name));
    let _ = write!(
        text,
        "\n[database]\nurl = {}\n{}\
         \n[master]\nurl = \"https://127.0.0.1:{}\"\n\
         poll_seconds = {}\nread_lease_seconds = {}\nwrite_lease_seconds = {}\n",
        quoted(database.url),
        database
            .password_file
            .map(|file| format!("password_file = \"{file}\"\n"))
            .unwrap_or_default(),
        master.service,
        timing.poll_seconds,
        timing.read_lease_seconds,
        timing.write_lease_seconds
    );
    let [(_, sso_administrators), (_, affiliate_administrators), .., (host, _)] = ACCOUNTS;
    let _ = write!(
        text,
        "\n[identity]\ndomains = [\"{DOMAIN}\"]\ngroups_file = \"groups.toml\"\n\
         \n[[identity.certificate]]\nsan_uri = \"sso://{DOMAIN}/*\"\naccount = '{DOMAIN}\\*'\n\
         \n[initial]\nsso_administrators = ['{sso_administrators}']\n\
         affiliate_administrators = ['{affiliate_administrators}']\n\
         trusted_hosts = ['{DOMAIN}\\{host}']\n"
    );
    text.push_str(&process());
    text
}

/// `profiles.toml`: every account at server 1 under its own name, and at server N as `NAME-N`.
pub(super) fn profile_file(servers: &[Ports]) -> String {
    let mut text = HEADER.to_owned();
    text.push_str("default = \"admin\"\n");
    for (number, ports) in (1..).zip(servers) {
        for name in profiles() {
            let profile = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
            let _ = write!(
                text,
                "\n[profile.{profile}]\naddr = \"https://127.0.0.1:{}\"\nca = \"tls/ca.crt\"\n\
                 cert = \"tls/{name}.crt\"\nkey = \"tls/{name}.key\"\nallow_development = true\n",
                ports.service
            );
        }
    }
    text
}

fn tls(name: &str) -> String {
    format!(
        "\n[tls]\ncertificate = \"tls/{name}.crt\"\nkey = \"tls/{name}.key\"\nca = \"tls/ca.crt\"\n\
         allow_development = true\n"
    )
}

/// The programs end with what started them, even when that is killed.
fn process() -> String {
    "\n[process]\nstop_with_parent = true\n".to_owned()
}

fn quoted(text: &str) -> toml::Value {
    toml::Value::String(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports { service: 20_001, operations: 20_002 };

    fn table(text: &str) -> toml::Table {
        text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn the_files_are_toml_whatever_is_in_the_names() {
        let timing = Timing::default();
        let awkward = "sqlite:a \"b\" \\ 'c'.db";
        let database = Database { url: awkward, password_file: None };
        let server = table(&server("sso-server-1", PORTS, PORTS, &database, &timing));
        assert_eq!(server["database"]["url"].as_str(), Some(awkward));
        assert_eq!(server["version"].as_integer(), Some(1));
        let initial = &server["initial"]["sso_administrators"][0];
        assert_eq!(initial.as_str(), Some(r"DEV\SSO Administrators"));
        assert_eq!(server["initial"]["trusted_hosts"][0].as_str(), Some(r"DEV\host"));

        let servers = ["sso-server-1".to_owned(), "sso-server-2".to_owned()];
        let master = table(&master("sso-master", PORTS, &servers, &timing));
        assert_eq!(master["server"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn every_account_has_a_profile_at_every_server() {
        let file = table(&profile_file(&[PORTS, PORTS]));
        let profiles = file["profile"].as_table().unwrap();
        assert_eq!(profiles.len(), 10);
        assert_eq!(profiles["host-2"]["cert"].as_str(), Some("tls/host.crt"));
    }
}
