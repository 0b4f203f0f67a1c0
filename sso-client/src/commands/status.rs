//! `sso status`: the server that answers, its keys, and who the caller is to it.

use serde::Serialize;
use sso_client::v1::{GetServerStatusResponse, MasterSecretStatus};

use super::{
    Service,
    shown::{master_secret_state, or_dash, time},
    tls_shown::{self, TlsDocument},
};
use crate::{failure::Failure, output::Output};

#[derive(Debug, Serialize)]
struct StatusDocument {
    server: String,
    address: String,
    version: String,
    started_at: Option<String>,
    server_time: Option<String>,
    database: String,
    schema_version: u32,
    system_enabled: bool,
    tickets_allowed: bool,
    host_initiated_allowed: bool,
    settings: SettingsDocument,
    master_secret: MasterSecretDocument,
    tls: Option<TlsDocument>,
    caller: CallerDocument,
}

#[derive(Debug, Serialize)]
struct SettingsDocument {
    positive_audit_level: u32,
    negative_audit_level: u32,
    remote_lookup: bool,
}

#[derive(Debug, Serialize)]
struct MasterSecretDocument {
    state: &'static str,
    master: String,
    generations: Vec<GenerationDocument>,
    last_confirmed_at: Option<String>,
    read_lease_until: Option<String>,
    write_lease_until: Option<String>,
    last_error: Option<String>,
    version: u64,
    epoch: u64,
    from_cache: bool,
    masters: Vec<MasterDocument>,
}

#[derive(Debug, Serialize)]
struct MasterDocument {
    address: String,
    name: String,
    reached: bool,
    primary: bool,
    epoch: u64,
    version: u64,
    last_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct GenerationDocument {
    generation: u32,
    fingerprint: String,
    active: bool,
}

#[derive(Debug, Serialize)]
struct CallerDocument {
    account: String,
    groups: Vec<String>,
    sso_administrator: bool,
    affiliate_administrator: bool,
    configuration_reader: bool,
    auditor: bool,
    trusted_host: bool,
    source: String,
}

pub(crate) async fn run(service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let client = service.connect()?;
    let status = client.system().status().await?;
    let status = document(status, client.addr());
    output.document(&status, |output| output.pairs(pairs(&status)))?;
    match status.master_secret.state {
        "read_only" => {
            output.warn(None, "the master secret server is not reachable: reads only");
        }
        "revoked" => output.warn(
            None,
            "the right of this server to the master secret was revoked: 'sso server readmit' gives it back",
        ),
        _ => {}
    }
    if let Some(tls) = &status.tls {
        tls_shown::warn(tls, output);
    }
    Ok(())
}

fn document(status: GetServerStatusResponse, address: &str) -> StatusDocument {
    let caller = status.caller.unwrap_or_default();
    let settings = status.settings.unwrap_or_default();
    StatusDocument {
        server: status.server,
        address: address.to_owned(),
        version: status.version,
        started_at: time(status.started_at.as_ref()),
        server_time: time(status.server_time.as_ref()),
        database: status.database,
        schema_version: status.schema_version,
        system_enabled: status.system_enabled,
        tickets_allowed: status.tickets_allowed,
        host_initiated_allowed: status.host_initiated_allowed,
        settings: SettingsDocument {
            positive_audit_level: settings.positive_audit_level,
            negative_audit_level: settings.negative_audit_level,
            remote_lookup: settings.remote_lookup,
        },
        master_secret: master_secret(status.master_secret.unwrap_or_default()),
        tls: status.tls.map(tls_shown::document),
        caller: CallerDocument {
            account: caller.account,
            groups: caller.groups,
            sso_administrator: caller.sso_administrator,
            affiliate_administrator: caller.affiliate_administrator,
            configuration_reader: caller.configuration_reader,
            auditor: caller.auditor,
            trusted_host: caller.trusted_host,
            source: caller.source,
        },
    }
}

fn master_secret(status: MasterSecretStatus) -> MasterSecretDocument {
    MasterSecretDocument {
        state: master_secret_state(status.state),
        master: status.master,
        generations: status
            .generations
            .into_iter()
            .map(|generation| GenerationDocument {
                generation: generation.generation,
                fingerprint: generation.fingerprint,
                active: generation.active,
            })
            .collect(),
        last_confirmed_at: time(status.last_confirmed_at.as_ref()),
        read_lease_until: time(status.read_lease_until.as_ref()),
        write_lease_until: time(status.write_lease_until.as_ref()),
        last_error: Some(status.last_error).filter(|error| !error.is_empty()),
        version: status.version,
        epoch: status.epoch,
        from_cache: status.from_cache,
        masters: status
            .masters
            .into_iter()
            .map(|master| MasterDocument {
                address: master.master,
                name: master.name,
                reached: master.reached,
                primary: master.primary,
                epoch: master.epoch,
                version: master.version,
                last_error: Some(master.last_error).filter(|error| !error.is_empty()),
            })
            .collect(),
    }
}

/// One of the masters in a few words.
fn master_in_words(master: &MasterDocument) -> String {
    let name = if master.name.is_empty() { &master.address } else { &master.name };
    let role = if master.primary { "primary" } else { "standby" };
    match (&master.last_error, master.reached) {
        (_, true) => format!("{name} {role} epoch {} version {}", master.epoch, master.version),
        (Some(error), false) => format!("{name} not reached ({error})"),
        (None, false) => format!("{name} not reached"),
    }
}

fn pairs(status: &StatusDocument) -> Vec<(&'static str, String)> {
    let secret = &status.master_secret;
    let caller = &status.caller;
    let at = |time: &Option<String>| or_dash(time.as_deref().unwrap_or_default());
    let generations = secret.generations.iter().map(|generation| {
        let active = if generation.active { " active" } else { "" };
        format!("{} ({}{active})", generation.generation, generation.fingerprint)
    });
    let on = |on| if on { "on" } else { "off" }.to_owned();
    let settings = &status.settings;
    let mut pairs = vec![
        ("server", status.server.clone()),
        ("address", status.address.clone()),
        ("version", status.version.clone()),
        ("started", at(&status.started_at)),
        ("server time", at(&status.server_time)),
        ("database", format!("{}, schema {}", status.database, status.schema_version)),
        ("system", if status.system_enabled { "enabled" } else { "disabled" }.to_owned()),
        ("tickets", on(status.tickets_allowed)),
        ("host-initiated", on(status.host_initiated_allowed)),
        ("remote look-ups", on(settings.remote_lookup)),
        (
            "audit levels",
            format!(
                "{} done, {} refused",
                settings.positive_audit_level, settings.negative_audit_level
            ),
        ),
        ("master", or_dash(&secret.master)),
        ("masters", {
            let masters: Vec<_> = secret.masters.iter().map(master_in_words).collect();
            or_dash(&masters.join(", "))
        }),
        (
            "master secret",
            match secret.from_cache {
                true => format!("{}, from the sealed cache of the server", secret.state),
                false => secret.state.to_owned(),
            },
        ),
        ("generations", or_dash(&generations.collect::<Vec<_>>().join(", "))),
        ("last confirmed", at(&secret.last_confirmed_at)),
        ("reads until", at(&secret.read_lease_until)),
        ("writes until", at(&secret.write_lease_until)),
    ];
    if let Some(error) = &secret.last_error {
        pairs.push(("last error", error.clone()));
    }
    if let Some(tls) = &status.tls {
        pairs.extend(tls_shown::pairs(tls));
    }
    pairs.push(("you", caller.account.clone()));
    pairs.push(("proved by", or_dash(&caller.source)));
    pairs.push(("your groups", or_dash(&caller.groups.join(", "))));
    pairs.push(("your roles", or_dash(&roles(caller).join(", "))));
    pairs
}

fn roles(caller: &CallerDocument) -> Vec<&'static str> {
    [
        ("SSO administrator", caller.sso_administrator),
        ("affiliate administrator", caller.affiliate_administrator),
        ("configuration reader", caller.configuration_reader),
        ("auditor", caller.auditor),
        ("trusted host", caller.trusted_host),
    ]
    .into_iter()
    .filter_map(|(role, held)| held.then_some(role))
    .collect()
}

#[cfg(test)]
mod tests {
    use sso_client::v1::{CallerStatus, GenerationStatus, KnownMaster};

    use super::*;

    #[test]
    fn status_as_document_and_pairs() {
        let status = GetServerStatusResponse {
            server: "sso-server-1".into(),
            database: "sqlite".into(),
            schema_version: 1,
            system_enabled: true,
            master_secret: Some(MasterSecretStatus {
                state: 1,
                generations: vec![GenerationStatus {
                    generation: 1,
                    fingerprint: "9f2c".into(),
                    active: true,
                }],
                masters: vec![
                    KnownMaster {
                        name: "m".into(),
                        reached: true,
                        primary: true,
                        epoch: 2,
                        version: 7,
                        ..Default::default()
                    },
                    KnownMaster {
                        master: "https://s:1".into(),
                        last_error: "refused".into(),
                        ..Default::default()
                    },
                ],
                from_cache: true,
                ..Default::default()
            }),
            caller: Some(CallerStatus {
                account: r"DEV\admin".into(),
                sso_administrator: true,
                trusted_host: true,
                source: "token".into(),
                ..Default::default()
            }),
            tickets_allowed: true,
            ..Default::default()
        };
        let document = document(status, "https://a:1");
        let json = serde_json::to_value(&document).unwrap();
        assert_eq!(json["master_secret"]["state"], "current");
        assert_eq!(json["master_secret"]["last_error"], serde_json::Value::Null);
        assert_eq!(json["caller"]["account"], r"DEV\admin");
        let pairs = pairs(&document);
        assert!(pairs.contains(&("generations", "1 (9f2c active)".into())));
        assert!(pairs.contains(&("your roles", "SSO administrator, trusted host".into())));
        let masters = "m primary epoch 2 version 7, https://s:1 not reached (refused)";
        assert!(pairs.contains(&("masters", masters.into())));
        let state = "current, from the sealed cache of the server";
        assert!(pairs.contains(&("master secret", state.into())));
        assert_eq!(json["master_secret"]["masters"][1]["reached"], false);
        assert!(pairs.contains(&("tickets", "on".into())));
        assert!(pairs.contains(&("host-initiated", "off".into())));
        assert!(pairs.contains(&("proved by", "token".into())));
        assert!(!pairs.iter().any(|(name, _)| *name == "last error"));
    }
}
