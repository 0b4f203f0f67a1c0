//! The settings files of a throw-away system.

use std::{fmt::Write as _, path::Path};

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

/// One of the master secret servers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Master<'m> {
    pub(super) name: &'m str,
    pub(super) ports: Ports,
    /// Makes a keystore of its own; the others follow it.
    pub(super) primary: bool,
}

/// What a server is told of its database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Database<'d> {
    pub(super) url: &'d str,
    pub(super) password_file: Option<&'d str>,
}

const HEADER: &str = "# Written by `sso dev` at every start; changes are lost.\nversion = 1\n";

/// The passphrase of a master, its keystore and its socket; relative to the folder.
pub(super) fn master_files(name: &str, primary: bool) -> [String; 3] {
    match primary {
        true => ["master.passphrase".into(), "keystore.json".into(), format!("{name}.sock")],
        false => [format!("{name}.passphrase"), format!("{name}.json"), format!("{name}.sock")],
    }
}

/// `sso-master.toml` and `sso-standby-N.toml`. `user` is who owns the folder, by name.
pub(super) fn master(
    own: Master<'_>,
    others: &[Master<'_>],
    servers: &[String],
    user: Option<&str>,
    timing: &Timing,
) -> String {
    let mut text = HEADER.to_owned();
    let [passphrase, keystore, socket] = master_files(own.name, own.primary);
    let role = if own.primary { "primary" } else { "standby" };
    let _ = write!(
        text,
        "name = {}\n\
         role = \"{role}\"\n\
         keystore = {}\n\
         listen = \"127.0.0.1:{}\"\n\
         operations_listen = \"127.0.0.1:{}\"\n\
         heartbeat_interval_ms = {}\n",
        quoted(own.name),
        quoted(&keystore),
        own.ports.service,
        own.ports.operations,
        timing.heartbeat_interval_ms
    );
    text.push_str(&tls(own.name));
    let _ = write!(
        text,
        "\n[[protector]]\nkind = \"passphrase\"\npassphrase_file = {}\n\
         \n[administration]\nsocket = {}\nremote = true\n",
        quoted(&passphrase),
        quoted(&socket)
    );
    let [(admin, _), ..] = ACCOUNTS;
    let rule = quoted(&format!("sso://{DOMAIN}/{admin}"));
    let _ = write!(
        text,
        "\n[[administrator]]\nname = \"{admin}\"\ncertificate = {{ san_uri = {rule} }}\n"
    );
    if let Some(user) = user {
        let _ = write!(text, "\n[[administrator]]\nname = \"owner\"\nuser = {}\n", quoted(user));
    }
    for server in servers {
        let rule = quoted(&format!("sso-server://{server}"));
        let name = quoted(server);
        let _ = write!(text, "\n[[server]]\nname = {name}\ncertificate = {{ san_uri = {rule} }}\n");
    }
    for Master { name, ports, .. } in others {
        let rule = quoted(&format!("sso-master://{name}"));
        let _ = write!(
            text,
            "\n[[peer]]\nname = {}\nurl = \"https://127.0.0.1:{}\"\ncertificate = {{ san_uri = {rule} }}\n",
            quoted(name),
            ports.service
        );
    }
    text.push_str(&process());
    text
}

/// `sso-server-N.toml`.
pub(super) fn server(
    name: &str,
    ports: Ports,
    masters: &[Master<'_>],
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
    let masters: Vec<_> = masters
        .iter()
        .map(|master| format!("\"https://127.0.0.1:{}\"", master.ports.service))
        .collect();
    let _ = write!(
        text,
        "\n[database]\nurl = {}\n{}\
         \n[master]\nurls = [{}]\n\
         certificates = [{{ san_uri = \"sso-master://*\" }}]\n\
         poll_seconds = {}\nread_lease_seconds = {}\nwrite_lease_seconds = {}\n",
        quoted(database.url),
        database
            .password_file
            .map(|file| format!("password_file = \"{file}\"\n"))
            .unwrap_or_default(),
        masters.join(", "),
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

/// `profiles.toml`: every account at server 1 under its own name, and at server N as `NAME-N`. The
/// administrator finds the master secret server at the socket.
pub(super) fn profile_file(servers: &[Ports], master_socket: &Path) -> String {
    let [(admin, _), ..] = ACCOUNTS;
    let socket = quoted(&format!("unix://{}", master_socket.display()));
    let mut text = HEADER.to_owned();
    text.push_str("default = \"admin\"\n");
    for (number, ports) in (1..).zip(servers) {
        for name in profiles() {
            let profile = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
            let _ = write!(
                text,
                "\n[profile.{profile}]\naddr = \"https://127.0.0.1:{}\"\nca = \"tls/ca.crt\"\ncrl = \"tls/ca.crl\"\n\
                 cert = \"tls/{name}.crt\"\nkey = \"tls/{name}.key\"\nallow_development = true\n",
                ports.service
            );
            if name == admin {
                let _ = writeln!(text, "master = {socket}");
            }
        }
    }
    text
}

fn tls(name: &str) -> String {
    format!(
        "\n[tls]\ncertificate = \"tls/{name}.crt\"\nkey = \"tls/{name}.key\"\nca = \"tls/ca.crt\"\n\
         crl = \"tls/ca.crl\"\nallow_development = true\n"
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
        let primary = Master { name: "sso-master", ports: PORTS, primary: true };
        let standby = Master { name: "sso-standby-1", ports: PORTS, primary: false };
        let server = table(&server("sso-server-1", PORTS, &[primary, standby], &database, &timing));
        assert_eq!(server["master"]["urls"].as_array().map(Vec::len), Some(2));
        assert_eq!(server["database"]["url"].as_str(), Some(awkward));
        assert_eq!(server["version"].as_integer(), Some(1));
        let initial = &server["initial"]["sso_administrators"][0];
        assert_eq!(initial.as_str(), Some(r"DEV\SSO Administrators"));
        assert_eq!(server["initial"]["trusted_hosts"][0].as_str(), Some(r"DEV\host"));

        let servers = ["sso-server-1".to_owned(), "sso-server-2".to_owned()];
        let first = table(&master(primary, &[standby], &servers, Some("o'wner"), &timing));
        assert_eq!(first["server"].as_array().map(Vec::len), Some(2));
        assert_eq!(first["peer"][0]["name"].as_str(), Some("sso-standby-1"));
        assert_eq!(first["administrator"][1]["user"].as_str(), Some("o'wner"));
        assert_eq!(first["administration"]["socket"].as_str(), Some("sso-master.sock"));
        let second = table(&master(standby, &[primary], &servers, None, &timing));
        assert_eq!(second["role"].as_str(), Some("standby"));
        assert_ne!(first["keystore"], second["keystore"]);
        assert_eq!(second["administrator"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn every_account_has_a_profile_at_every_server() {
        let file = table(&profile_file(&[PORTS, PORTS], Path::new("/x/sso-master.sock")));
        let profiles = file["profile"].as_table().unwrap();
        assert_eq!(profiles.len(), 10);
        assert_eq!(profiles["host-2"]["cert"].as_str(), Some("tls/host.crt"));
        assert_eq!(profiles["admin-2"]["master"].as_str(), Some("unix:///x/sso-master.sock"));
        assert!(profiles["host"].get("master").is_none());
    }
}
