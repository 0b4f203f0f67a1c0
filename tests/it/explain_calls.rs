//! An explanation and the call it is about end alike: actions, types of applications and callers.

use sso_proto::{Reason as R, v1};
use sso_tests::{everywhere::on_each_database, system::System};
use v1::ApplicationType as Kind;

use crate::asking::{application, ask, create_application, look_up, map, new_mapping, update};

const KINDS: [(&str, Kind); 4] = [
    ("Ind", Kind::Individual),
    ("Grp", Kind::Group),
    ("Host", Kind::HostGroup),
    ("Conf", Kind::ConfigStore),
];
const ACTIONS: [&str; 10] = [
    "configuration.reveal",
    "configuration.read",
    "configuration.set",
    "configuration.history",
    "credentials.reveal",
    "credentials.logon",
    "ticket.issue",
    "ticket.forward",
    "ticket.redeem",
    "mapping.list-members",
];
const CALLERS: [&str; 3] = ["user", "host", "app-admin"];

/// Explained to somebody; the reason of the first check that fails.
async fn explained(
    system: &System,
    who: &str,
    account: &str,
    application: &str,
    action: &str,
) -> (v1::ExplainResponse, Option<String>) {
    let message = v1::ExplainRequest {
        account: format!("DEV\\{account}"),
        application: application.into(),
        action: action.into(),
        external_user: "EXT01".into(),
    };
    let explained: v1::ExplainResponse =
        ask(system, who, "Access/Explain", &message).await.expect("explained");
    let failed = explained.steps.iter().find(|step| !step.passed);
    assert_eq!(explained.allowed, failed.is_none());
    let reason = failed.map(|step| step.reason.clone());
    (explained, reason)
}

fn values() -> Option<v1::CredentialValues> {
    Some(v1::CredentialValues { values: vec!["pw".into()] })
}

/// The call itself. A redemption is by `app-admin`, of the ticket of `who`.
async fn call(system: &System, who: &str, name: &str, action: &str, ticket: &str) -> Result<(), R> {
    let (application, identifier) = (name.to_owned(), "main".to_owned());
    match action {
        "configuration.reveal" | "configuration.read" => {
            let mode = match action {
                "configuration.reveal" => v1::ReadMode::Runtime,
                _ => v1::ReadMode::Admin,
            };
            let fields = Vec::new();
            let mode = mode.into();
            let message = v1::GetConfigurationRequest { application, identifier, mode, fields };
            let answer: Result<v1::GetConfigurationResponse, _> =
                ask(system, who, "ConfigStore/Get", &message).await;
            answer.map(drop)
        }
        "configuration.set" => write(system, who, name).await,
        "configuration.history" => {
            let message = v1::HistoryRequest { application, identifier };
            let answer: Result<v1::HistoryResponse, _> =
                ask(system, who, "ConfigStore/History", &message).await;
            answer.map(drop)
        }
        "credentials.reveal" => look_up(system, who, name, true).await.map(drop),
        "credentials.logon" => {
            let message = v1::LogonExternalUserRequest {
                application,
                external_user: "EXT01".into(),
                credentials: values(),
                ..Default::default()
            };
            let answer: Result<v1::LogonExternalUserResponse, _> =
                ask(system, who, "Lookup/LogonExternalUser", &message).await;
            answer.map(drop)
        }
        "ticket.issue" => {
            let message = v1::IssueTicketRequest { application, ..Default::default() };
            issue(system, who, &message).await.map(drop)
        }
        "ticket.forward" => {
            let user_token = Some(v1::UserToken { text: "x.y.z".into() });
            let message = v1::IssueTicketRequest { user_token, ..Default::default() };
            match issue(system, who, &message).await {
                // Whose token it is shows when it is there.
                Err(R::UserTokenRefused) => Ok(()),
                other => other.map(drop),
            }
        }
        "ticket.redeem" => {
            let message = v1::RedeemTicketRequest {
                application,
                ticket: Some(v1::Ticket { text: ticket.into() }),
                sender: Some(format!("DEV\\{who}")),
                refresh: true,
            };
            let answer: Result<v1::RedeemTicketResponse, _> =
                ask(system, "app-admin", "Tickets/Redeem", &message).await;
            answer.map(drop)
        }
        "mapping.list-members" => {
            let message = v1::ListMembersRequest { application, ..Default::default() };
            let answer: Result<v1::ListMembersResponse, _> =
                ask(system, who, "Mappings/ListMembers", &message).await;
            answer.map(drop)
        }
        other => panic!("{other}"),
    }
}

async fn issue(system: &System, who: &str, message: &v1::IssueTicketRequest) -> Result<String, R> {
    let mut issued: v1::IssueTicketResponse = ask(system, who, "Tickets/Issue", message).await?;
    Ok(std::mem::take(&mut issued.ticket.as_mut().expect("a ticket").text))
}

async fn write(system: &System, who: &str, application: &str) -> Result<(), R> {
    let message = v1::SetConfigurationRequest {
        application: application.into(),
        identifier: "main".into(),
        values: [("Password".to_owned(), v1::NewValue { value: Some("x".into()) })].into(),
        ..Default::default()
    };
    let answer: Result<v1::SetConfigurationResponse, _> =
        ask(system, who, "ConfigStore/Set", &message).await;
    answer.map(drop)
}

async fn switch(system: &System, on: bool) {
    let info = v1::GlobalInfo {
        tickets_allowed: on,
        host_initiated_allowed: on,
        trusted_hosts: vec!["DEV\\host".into(), "DEV\\app-admin".into()],
        ..Default::default()
    };
    let paths = ["tickets_allowed", "host_initiated_allowed", "trusted_hosts"];
    let message = v1::UpdateGlobalInfoRequest {
        global_info: Some(info),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
        }),
    };
    let done: Result<v1::UpdateGlobalInfoResponse, _> =
        ask(system, "admin", "System/UpdateGlobalInfo", &message).await;
    done.expect("switched");
}

/// Every action, type and caller ends alike. Returns how many calls were served.
async fn agree(system: &System, when: &str, tickets: &[String]) -> usize {
    let mut served = 0;
    for (name, _) in KINDS {
        for action in ACTIONS {
            for (who, ticket) in CALLERS.iter().zip(tickets) {
                let (explained, reason) = explained(system, "admin", who, name, action).await;
                let real = call(system, who, name, action, ticket).await;
                served += usize::from(real.is_ok());
                let real = real.err().map(R::as_str);
                assert_eq!(
                    reason.as_deref(),
                    real,
                    "{when}: {who} {action} {name}: {:#?}",
                    explained.steps
                );
            }
        }
    }
    served
}

#[test]
fn an_explanation_ends_as_the_call_does() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            for (name, kind) in KINDS {
                create_application(system, application(name, kind)).await;
            }
            for (name, account) in
                [("Ind", "DEV\\user"), ("Grp", "DEV\\Application Users"), ("Host", "")]
            {
                let new = new_mapping(name, account, "EXT01", Some("pw"));
                map(system, "app-admin", new).await.expect("mapped");
            }
            write(system, "app-admin", "Conf").await.expect("a configuration");
            switch(system, true).await;
            let mut tickets = Vec::new();
            for who in CALLERS {
                let message = v1::IssueTicketRequest::default();
                tickets.push(issue(system, who, &message).await.expect("a ticket"));
            }
            let tickets = &tickets;
            let bare = agree(system, "without tickets in applications", tickets).await;
            for (name, kind) in [("Ind", Kind::Individual), ("Grp", Kind::Group)] {
                let allowed =
                    v1::Application { allow_tickets: Some(true), ..application(name, kind) };
                update(system, allowed, "allow_tickets").await;
            }
            // The ticket of the user is redeemed in two applications.
            assert_eq!(agree(system, "all on", tickets).await, bare + 2);
            for (name, kind) in [("Ind", Kind::Individual), ("Grp", Kind::Group)] {
                let off =
                    v1::Application { windows_initiated: Some(false), ..application(name, kind) };
                update(system, off, "windows_initiated").await;
                let redeemed = call(system, "user", name, "ticket.redeem", &tickets[0]).await;
                assert_eq!(redeemed, Err(R::WindowsInitiatedOff));
            }
            agree(system, "no credentials for callers", tickets).await;
            switch(system, false).await;
            agree(system, "system switches off", tickets).await;
            for (name, _) in KINDS {
                let message = v1::DisableApplicationRequest { name: name.into() };
                let done: Result<v1::DisableApplicationResponse, _> =
                    ask(system, "admin", "Applications/Disable", &message).await;
                done.expect("disabled");
            }
            agree(system, "applications disabled, switches off", tickets).await;
            switch(system, true).await;
            agree(system, "applications disabled", tickets).await;
            let message = v1::DisableSystemRequest {};
            let done: Result<v1::DisableSystemResponse, _> =
                ask(system, "admin", "System/Disable", &message).await;
            done.expect("disabled");
            assert_eq!(agree(system, "system disabled", tickets).await, 0);
        });
    });
}

#[test]
fn the_accounts_of_the_system_are_not_shown_to_administrators_of_an_application() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let users = vec!["DEV\\Application Users".to_owned(), "DEV\\admin".to_owned()];
            let ind = application("Ind", Kind::Individual);
            create_application(system, v1::Application { user_accounts: users, ..ind }).await;
            create_application(system, application("Conf", Kind::ConfigStore)).await;
            for action in
                ["system.update", "application.create", "audit.list-all", "ticket.forward"]
            {
                for account in ["admin", "user", "host"] {
                    let (told, reason) =
                        explained(system, "app-admin", account, "Ind", action).await;
                    assert_eq!(reason.as_deref(), Some("NOT_AFFILIATE_ADMINISTRATOR"));
                    assert_eq!(
                        (told.steps.len(), told.accounts_expected.len()),
                        (1, 0),
                        "{told:?}"
                    );
                }
                let (told, _) = explained(system, "admin", "admin", "Ind", action).await;
                assert!(!told.accounts_expected.is_empty(), "{action}");
            }
            for (action, name) in [
                ("configuration.read", "Conf"),
                ("application.update", "Ind"),
                ("mapping.create", "Ind"),
            ] {
                let (told, _) = explained(system, "app-admin", "admin", name, action).await;
                let own =
                    ["DEV\\Application Administrators", "DEV\\Application Users", "DEV\\admin"];
                for shown in told.accounts_expected.iter().chain(&told.groups) {
                    assert!(own.contains(&shown.as_str()), "{action}: {shown}");
                }
                let told = format!("{told:?}");
                for secret in ["SSO Administrators", "Affiliate"] {
                    assert!(!told.contains(secret), "{action}: {told}");
                }
            }
            // Being an administrator of the system does not show, being one of the application does.
            let update = "application.update";
            let (_, reason) = explained(system, "app-admin", "admin", "Ind", update).await;
            assert_eq!(reason.as_deref(), Some("NOT_APPLICATION_ADMINISTRATOR"));
            let (_, reason) = explained(system, "app-admin", "app-admin", "Ind", update).await;
            assert_eq!(reason, None);
            let (told, reason) = explained(system, "admin", "admin", "Ind", update).await;
            assert_eq!((reason, told.groups.is_empty()), (None, false));
        });
    });
}
