//! `ssomanage`: administration of the system, its applications and mappings (ESSO.md 11.1).

use std::path::Path;

use sso_client::{RememberedFor, v1::GlobalInfo, xml::parse_global_info};

use super::super::{app_file::Verb, mapping::batch, read_file, system};
use super::{
    apps,
    frame::Call,
    mappings::{self, Change},
    server,
    switches::{switches, yes_or_no},
};
use crate::failure::Failure;

switches! {
    /// What `ssomanage` is asked for.
    Manage by run;
    Server = "server" "SERVER" 1..=1 WorksHere "set the SSO server of the current user";
    ServerAll = "serverall" "SERVER" 1..=1 WorksHere "set the SSO server of all users of this computer";
    ShowServer = "showserver" "" 0..=0 WorksHere "show the SSO servers that are set";
    DisplayDb = "displaydb" "" 0..=0 Works "show the global settings";
    ShowDb = "showdb" "" 0..=0 Works "show the database of the server in use";
    UpdateDb = "updatedb" "FILE" 1..=1 Works "change the global settings by an XML file";
    EnableSso = "enablesso" "" 0..=0 Works "enable the SSO system";
    DisableSso = "disablesso" "" 0..=0 Works "disable the SSO system";
    Enable = "enable" "hisso" 1..=1 Works "allow host-initiated SSO; winsync and extsync are refused: password synchronisation is not in this version";
    Disable = "disable" "hisso" 1..=1 Works "forbid host-initiated SSO; winsync and extsync are refused: password synchronisation is not in this version";
    Tickets = "tickets" "ALLOWED VALIDATE" 2..=2 Works "allow tickets, and require their validation: yes or no each";
    SetSsl = "setssl" "yes" 1..=1 Explained "TLS to a database on another machine is on already: yes changes nothing, no is refused";
    CreateApps = "createapps" "FILE" 1..=1 Works "create the applications of an XML file";
    UpdateApps = "updateapps" "FILE" 1..=1 Works "update the applications of an XML file";
    DeleteApp = "deleteapp" "APP" 1..=1 Works "delete an application with all of its mappings";
    EnableApp = "enableapp" "APP" 1..=1 Works "enable an application";
    DisableApp = "disableapp" "APP" 1..=1 Works "disable an application";
    ListApps = "listapps" "[all]" 0..=1 Works "list applications; all: config-store applications too";
    DisplayApp = "displayapp" "APP" 1..=1 Works "show properties, flags and fields of an application";
    PurgeCache = "purgecache" "APP" 1..=1 Works "make every server forget what it has cached of an application";
    ListMappings = "listmappings" "DOMAIN\\user|APP [APP]" 1..=2 Works "list the mappings of a user, of an application, or of a user in an application";
    CreateMappings = "createmappings" "FILE" 1..=1 Works "create the mappings of an XML file, disabled";
    DeleteMappings = "deletemappings" "FILE" 1..=1 Works "delete the mappings of an XML file";
    DeleteMapping = "deletemapping" "DOMAIN\\user APP" 2..=2 Works "delete a mapping; host group: name the external account";
    EnableMapping = "enablemapping" "DOMAIN\\user APP" 2..=2 Works "enable a mapping; host group: name the external account";
    DisableMapping = "disablemapping" "DOMAIN\\user APP" 2..=2 Works "disable a mapping; host group: name the external account";
    SetCredentials = "setcredentials" "DOMAIN\\user APP" 2..=2 Works "set the credentials of a mapping, creating it where it is missing; asked for, or lines of standard input";
}

async fn run(verb: Manage, call: &Call<'_>) -> Result<(), Failure> {
    match verb {
        Manage::Server => server::remember(RememberedFor::User, call),
        Manage::ServerAll => server::remember(RememberedFor::Machine, call),
        Manage::ShowServer => server::show(call),
        Manage::DisplayDb => display_db(call).await,
        Manage::ShowDb => server::show_database(call).await,
        Manage::UpdateDb => update_db(call).await,
        Manage::EnableSso => {
            call.connect()?.system().enable().await?;
            call.line("The SSO system is enabled.")
        }
        Manage::DisableSso => {
            call.connect()?.system().disable().await?;
            call.line("The SSO system is disabled.")
        }
        Manage::Enable => allow(true, call).await,
        Manage::Disable => allow(false, call).await,
        Manage::Tickets => tickets(call).await,
        Manage::SetSsl => server::set_ssl(call),
        Manage::CreateApps => apps::apply(Verb::Create, call).await,
        Manage::UpdateApps => apps::apply(Verb::Update, call).await,
        Manage::DeleteApp => apps::delete(call).await,
        Manage::EnableApp => apps::enable(call).await,
        Manage::DisableApp => apps::disable(call).await,
        Manage::ListApps => apps::list(call).await,
        Manage::DisplayApp => apps::show(call).await,
        Manage::PurgeCache => apps::purge_cache(call).await,
        Manage::ListMappings => mappings::list_of_arguments(call).await,
        Manage::CreateMappings => mappings::change_all(batch::Verb::Create, call).await,
        Manage::DeleteMappings => mappings::change_all(batch::Verb::Delete, call).await,
        Manage::DeleteMapping => change(Change::Delete, call).await,
        Manage::EnableMapping => change(Change::Enable, call).await,
        Manage::DisableMapping => change(Change::Disable, call).await,
        Manage::SetCredentials => {
            let (client, application, key) = mappings::named(call).await?;
            mappings::set_credentials(&client.mappings(), &application, &key, call).await
        }
    }
}

async fn change(change: Change, call: &Call<'_>) -> Result<(), Failure> {
    let (client, _, key) = mappings::named(call).await?;
    mappings::change(change, &client.mappings(), &key, call).await
}

async fn display_db(call: &Call<'_>) -> Result<(), Failure> {
    let system = call.connect()?.system();
    let info = system.info().await?;
    let status = system.status().await?;
    let yes = |on| if on { "yes" } else { "no" }.to_owned();
    call.pairs(&[
        ("SSO server", status.server),
        ("Database", format!("{}, schema {}", status.database, status.schema_version)),
        ("SSO secret server", info.secret_server),
        ("SSO admin account", info.sso_administrators.join(";")),
        ("SSO affiliate admin account", info.affiliate_administrators.join(";")),
        ("Audit of deleted applications", format!("{} rows", info.audit_deleted_applications)),
        ("Audit of deleted mappings", format!("{} rows", info.audit_deleted_mappings)),
        ("Audit of credential look-ups", format!("{} rows", info.audit_credential_lookups)),
        ("Ticket timeout", format!("{} minutes", info.ticket_timeout)),
        ("Credential cache timeout", format!("{} minutes", info.credential_cache_timeout)),
        ("SSO status", if info.enabled { "enabled" } else { "disabled" }.to_owned()),
        ("Tickets allowed", yes(info.tickets_allowed)),
        ("Validate tickets", yes(info.tickets_validated)),
        ("Host-initiated SSO", yes(info.host_initiated_allowed)),
        ("Password synchronisation", "not in this version".to_owned()),
    ])
}

async fn update_db(call: &Call<'_>) -> Result<(), Failure> {
    let file = Path::new(call.argument(0));
    let bytes = read_file(file)?;
    let update = parse_global_info(&bytes).map_err(|error| Failure::xml(file, &error))?;
    let left_out = system::left_out(&update);
    let (info, paths) = system::masked(update)?;
    call.connect()?.system().update(info, &paths).await?;
    if let Some(left_out) = left_out {
        call.warn(&left_out);
    }
    let names: Vec<_> = paths.into_iter().map(element).collect();
    call.line(&format!("Updated: {}.", names.join(", ")))
}

/// The element of the file that a path stands for.
fn element(path: &'static str) -> &'static str {
    match path {
        "sso_administrators" => "ssoAdminAccount",
        "affiliate_administrators" => "ssoAffiliateAdminAccount",
        "audit_deleted_applications" => "auditDeletedApps",
        "audit_deleted_mappings" => "auditDeletedMappings",
        "audit_credential_lookups" => "auditCredentialLookups",
        "ticket_timeout" => "ticketTimeout",
        "credential_cache_timeout" => "credCacheTimeout",
        other => other,
    }
}

/// `hisso` only: the others belong to password synchronisation.
async fn allow(on: bool, call: &Call<'_>) -> Result<(), Failure> {
    let what = call.argument(0).to_ascii_lowercase();
    match what.as_str() {
        "hisso" => {
            let info = GlobalInfo { host_initiated_allowed: on, ..GlobalInfo::default() };
            call.connect()?.system().update(info, &["host_initiated_allowed"]).await?;
            let state = if on { "allowed" } else { "not allowed" };
            call.line(&format!("Host-initiated SSO is {state}."))
        }
        "winsync" | "extsync" => Err(Failure::refused(
            format!("{what} is password synchronisation, which is not part of this version"),
            "only hisso can be switched",
        )),
        _ => Err(Failure::usage(format!("'{}' must be hisso", call.argument(0)))),
    }
}

async fn tickets(call: &Call<'_>) -> Result<(), Failure> {
    let info = GlobalInfo {
        tickets_allowed: yes_or_no(call.argument(0))?,
        tickets_validated: yes_or_no(call.argument(1))?,
        ..GlobalInfo::default()
    };
    let paths = ["tickets_allowed", "tickets_validated"];
    let info = call.connect()?.system().update(info, &paths).await?;
    let state = |on| if on { "yes" } else { "no" };
    call.line(&format!("Tickets allowed: {}.", state(info.tickets_allowed)))?;
    call.line(&format!("Validate tickets: {}.", state(info.tickets_validated)))
}
