//! `-server`, `-serverall`, `-showserver`, `-showdb`, `-setssl`: which server, and what it stands on.

use sso_client::{Environment, RememberedFor};
use sso_core::connector;

use super::{frame::Call, switches::yes_or_no};
use crate::failure::Failure;

/// Where servers listen unless their settings say otherwise.
const PORT: u16 = 7400;

/// Remembers the server that is named, for the user or for everybody.
pub(super) fn remember(whose: RememberedFor, call: &Call<'_>) -> Result<(), Failure> {
    let address = address(call.argument(0));
    if connector::local_path(&address).is_none() {
        connector::check_address(&address)
            .map_err(|problem| Failure::usage(format!("'{}': {problem}", call.argument(0))))?;
    }
    let file = Environment::read().remember(whose, &address).map_err(|error| {
        let hint = match whose {
            RememberedFor::User => "the folder of your own settings must be writable",
            RememberedFor::Machine => "only an administrator of this machine sets it for everybody",
        };
        Failure::refused(error.to_string(), hint)
    })?;
    let whom = match whose {
        RememberedFor::User => "Your SSO server",
        RememberedFor::Machine => "The SSO server of all users of this computer",
    };
    call.line(&format!("{whom} is {address} ({})", file.display()))?;
    if let Ok(profile) = call.service().profile()
        && profile.addr != address
    {
        call.warn(&format!(
            "{} goes before it; a profile, SSO_ADDR or your own server names that one",
            profile.addr
        ));
    }
    Ok(())
}

/// The reference product names computers; an address with a scheme is taken as it is.
fn address(server: &str) -> String {
    if server.contains("://") {
        return server.to_owned();
    }
    match server.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => format!("https://{server}"),
        Some(_) | None => format!("https://{server}:{PORT}"),
    }
}

pub(super) fn show(call: &Call<'_>) -> Result<(), Failure> {
    let environment = Environment::read();
    let of = |whose| match environment.remembered(whose) {
        Ok(address) => Ok(address.unwrap_or_else(|| "(none)".to_owned())),
        Err(error) => Err(Failure::from(error)),
    };
    let mut pairs = vec![
        ("SSO server of this user", of(RememberedFor::User)?),
        ("SSO server of all users", of(RememberedFor::Machine)?),
    ];
    if let Ok(profile) = call.service().profile() {
        pairs.push(("SSO server in use", profile.addr));
    }
    call.pairs(&pairs)
}

/// The database of the server in use, as far as it tells.
pub(super) async fn show_database(call: &Call<'_>) -> Result<(), Failure> {
    let status = call.connect()?.system().status().await?;
    call.pairs(&[
        ("SSO server", status.server),
        ("Database", status.database),
        ("Schema version", status.schema_version.to_string()),
    ])
}

/// A database on another machine is reached over TLS unless the settings of the server say otherwise.
pub(super) fn set_ssl(call: &Call<'_>) -> Result<(), Failure> {
    match yes_or_no(call.argument(0))? {
        true => call.line(
            "A database on another machine is always reached over TLS (sslmode=verify-full), unless \
             the settings of the server name another sslmode; there is nothing to change.",
        ),
        false => Err(Failure::refused(
            "TLS to the database is not switched off by a command",
            "sslmode in [database] url of the settings of the server says how it is reached",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_computer_is_named_or_an_address() {
        for (server, expected) in [
            ("sso02", "https://sso02:7400"),
            ("sso02.corp.example:7401", "https://sso02.corp.example:7401"),
            ("https://a.example:1", "https://a.example:1"),
            ("unix:///run/sso/sso.sock", "unix:///run/sso/sso.sock"),
            ("10.0.0.7", "https://10.0.0.7:7400"),
        ] {
            assert_eq!(address(server), expected);
            let local = connector::local_path(&address(server)).is_some();
            assert!(local || connector::check_address(&address(server)).is_ok(), "{server}");
        }
        assert!(connector::check_address(&address("http://a.example:1")).is_err());
    }
}
