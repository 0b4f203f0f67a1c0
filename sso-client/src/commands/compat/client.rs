//! `ssoclient`: users and their own mappings (ESSO.md 11.3). No switch takes another identity.

use sso_client::{
    ApplicationFilter, MappingFilter, MappingKey, RememberedFor,
    v1::{Application, CallerStatus},
};

use super::{
    application::{display, is_config_store, is_host_group, list_line},
    frame::Call,
    mappings::{self, Change},
    server,
    switches::switches,
};
use crate::failure::Failure;

switches! {
    /// What `ssoclient` is asked for.
    Client by run;
    Server = "server" "SERVER" 1..=1 WorksHere "set your SSO server";
    ShowServer = "showserver" "" 0..=0 WorksHere "show the SSO servers that are set";
    ListApps = "listapps" "" 0..=0 Works "list the applications you are a user of";
    DisplayApp = "displayapp" "APP" 1..=1 Works "show an application";
    ListMappings = "listmappings" "" 0..=0 Works "list your mappings";
    SetCredentials = "setcredentials" "APP" 1..=1 Works "set your credentials, creating the mapping where you may; asked for, or lines of standard input";
    DeleteMapping = "deletemapping" "APP" 1..=1 Works "delete your mapping";
    EnableMapping = "enablemapping" "APP" 1..=1 Works "enable your mapping";
    DisableMapping = "disablemapping" "APP" 1..=1 Works "disable your mapping";
}

async fn run(verb: Client, call: &Call<'_>) -> Result<(), Failure> {
    match verb {
        Client::Server => server::remember(RememberedFor::User, call),
        Client::ShowServer => server::show(call),
        Client::ListApps => list_apps(call).await,
        Client::DisplayApp => {
            let application = call.connect()?.applications().show(call.argument(0)).await?;
            display(&application, call)
        }
        Client::ListMappings => mappings::list(&MappingFilter::default(), call).await,
        Client::SetCredentials => {
            let client = call.connect()?;
            let application = client.applications().show(call.argument(0)).await?;
            if is_host_group(&application) {
                return Err(Failure::refused(
                    format!(
                        "'{}' is for external users, not for your own account",
                        application.name
                    ),
                    "an administrator of the application uses ssomanage -setcredentials",
                ));
            }
            let key = MappingKey::own(&application.name);
            mappings::set_credentials(&client.mappings(), &application, &key, call).await
        }
        Client::DeleteMapping => change(Change::Delete, call).await,
        Client::EnableMapping => change(Change::Enable, call).await,
        Client::DisableMapping => change(Change::Disable, call).await,
    }
}

async fn change(change: Change, call: &Call<'_>) -> Result<(), Failure> {
    let mappings = call.connect()?.mappings();
    mappings::change(change, &mappings, &MappingKey::own(call.argument(0)), call).await
}

async fn list_apps(call: &Call<'_>) -> Result<(), Failure> {
    let client = call.connect()?;
    let caller = client.system().status().await?.caller.unwrap_or_default();
    let applications = client.applications().list(&ApplicationFilter::default()).await?;
    for application in applications {
        if !is_config_store(&application) && is_user(&caller, &application) {
            call.line(&list_line(&application))?;
        }
    }
    Ok(())
}

/// Plain users get applications without their accounts; administrators are users only where an account
/// of theirs stands among the users.
fn is_user(caller: &CallerStatus, application: &Application) -> bool {
    let own = |account: &str| {
        let mut accounts = std::iter::once(&caller.account).chain(&caller.groups);
        accounts.any(|own| own.to_lowercase() == account.to_lowercase())
    };
    application.sensitive_info_removed
        || application.user_accounts.iter().any(|account| own(account))
        || own(&application.windows_account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_administrator_is_not_a_user_by_that() {
        let caller = CallerStatus {
            account: r"D\u".into(),
            groups: vec![r"D\Clerks".into()],
            ..CallerStatus::default()
        };
        let of = |users: &[&str], removed| Application {
            user_accounts: users.iter().map(|&user| user.to_owned()).collect(),
            sensitive_info_removed: removed,
            ..Application::default()
        };
        assert!(is_user(&caller, &of(&[r"d\CLERKS"], false)));
        assert!(is_user(&caller, &of(&[r"D\U"], false)));
        assert!(is_user(&caller, &of(&[], true)));
        assert!(!is_user(&caller, &of(&[r"D\Others"], false)));
    }
}
