//! Explanations of access: what they say is what happens.

use sso_proto::{Reason as R, v1};
use sso_tests::{everywhere::on_each_database, system::System};
use v1::ApplicationType as Kind;

use crate::asking::{
    application, ask, create_application, disable, enable, external, key, look_up, map,
    new_mapping, pair, set, update,
};

async fn explain(
    system: &System,
    who: &str,
    account: &str,
    application: &str,
    action: &str,
) -> Result<v1::ExplainResponse, R> {
    let message = v1::ExplainRequest {
        account: account.into(),
        application: application.into(),
        action: action.into(),
        external_user: String::new(),
    };
    ask(system, who, "Access/Explain", &message).await
}

/// The reason of the first check that fails.
fn first_failure(explained: &v1::ExplainResponse) -> Option<&str> {
    assert_eq!(explained.allowed, explained.steps.iter().all(|step| step.passed));
    for step in &explained.steps {
        assert_eq!(step.passed, step.reason.is_empty(), "{step:?}");
        assert!(!step.check.is_empty() && !step.detail.is_empty(), "{step:?}");
    }
    explained.steps.iter().find(|step| !step.passed).map(|step| step.reason.as_str())
}

#[test]
fn an_explanation_ends_as_the_look_up_does() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let ind = || application("Ind", Kind::Individual);
            let agree = async |wanted: Option<R>| {
                let explained =
                    explain(system, "app-admin", "dev\\USER", "ind", "").await.expect("explained");
                let real = look_up(system, "user", "Ind", true).await.err();
                assert_eq!(real, wanted);
                assert_eq!(
                    first_failure(&explained),
                    wanted.map(|it| it.as_str()),
                    "{explained:#?}"
                );
                explained
            };
            create_application(system, v1::Application { enabled: false, ..ind() }).await;
            agree(Some(R::ApplicationDisabled)).await;
            let message = v1::EnableApplicationRequest { name: "Ind".into() };
            let on: Result<v1::EnableApplicationResponse, _> =
                ask(system, "admin", "Applications/Enable", &message).await;
            on.expect("enabled");
            agree(Some(R::MappingNotFound)).await;
            map(system, "user", new_mapping("Ind", "", "USR01", None)).await.expect("mapped");
            let explained = agree(Some(R::CredentialsNotSet)).await;
            assert_eq!(
                (explained.mapping_account.as_str(), explained.external_user.as_str()),
                ("DEV\\user", "USR01")
            );
            set(system, "user", key("Ind", ""), "canary-pw").await.expect("set");
            let explained = agree(None).await;
            assert!(explained.allowed && !format!("{explained:?}").contains("canary"));
            assert_eq!(explained.action, "credentials.reveal");
            assert_eq!(explained.groups, ["DEV\\Application Users"]);
            assert_eq!(explained.accounts_expected, ["DEV\\Application Users"]);
            assert!(!explained.groups_unknown);
            assert_eq!(look_up(system, "user", "Ind", false).await, pair("USR01", "canary-pw"));
            disable(system, "user", key("Ind", "")).await.expect("disabled");
            agree(Some(R::MappingDisabled)).await;
            disable(system, "app-admin", key("Ind", "DEV\\user")).await.expect("disabled");
            agree(Some(R::MappingDisabledByAdministrator)).await;
            enable(system, "app-admin", external("Ind", "USR01")).await.expect("enabled");
            let off = v1::Application { windows_initiated: Some(false), ..ind() };
            update(system, off, "windows_initiated").await;
            agree(Some(R::WindowsInitiatedOff)).await;
            let others =
                v1::Application { user_accounts: vec!["DEV\\Integration Hosts".into()], ..ind() };
            update(system, others, "user_accounts").await;
            let explained = agree(Some(R::NotApplicationUser)).await;
            assert_eq!(explained.accounts_expected, ["DEV\\Integration Hosts"]);
            // Everything that is wrong shows at once.
            let wrong: Vec<_> = explained
                .steps
                .iter()
                .filter(|step| !step.passed)
                .map(|step| step.reason.as_str())
                .collect();
            assert!(wrong.contains(&"WINDOWS_INITIATED_OFF"), "{wrong:?}");
            // A disabled system still explains itself.
            let nothing = v1::DisableSystemRequest {};
            let done: Result<v1::DisableSystemResponse, _> =
                ask(system, "admin", "System/Disable", &nothing).await;
            done.expect("disabled");
            agree(Some(R::SystemDisabled)).await;
        });
    });
}

#[test]
fn explanations_are_for_administrators_of_the_application_and_know_every_action() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            for (name, kind) in [
                ("Ind", Kind::Individual),
                ("Grp", Kind::Group),
                ("Host", Kind::HostGroup),
                ("Conf", Kind::ConfigStore),
            ] {
                create_application(system, application(name, kind)).await;
            }
            for (who, reason) in
                [("user", R::NotApplicationAdministrator), ("host", R::NotApplicationAdministrator)]
            {
                assert_eq!(explain(system, who, "DEV\\user", "Ind", "").await.unwrap_err(), reason);
            }
            assert_eq!(
                explain(system, "admin", "DEV\\user", "Nowhere", "").await.unwrap_err(),
                R::ApplicationNotFound
            );
            assert_eq!(
                explain(system, "admin", "DEV\\user", "Ind", "no.such").await.unwrap_err(),
                R::InvalidRequest
            );
            assert_eq!(
                explain(system, "admin", "", "Ind", "").await.unwrap_err(),
                R::InvalidAccount
            );
            let of = async |account: &str, application: &str, action: &str| {
                let explained = explain(system, "admin", account, application, action)
                    .await
                    .expect("explained");
                (explained.action.clone(), first_failure(&explained).unwrap_or_default().to_owned())
            };
            for (account, application, action, wanted, reason) in [
                ("DEV\\user", "Conf", "", "configuration.reveal", ""),
                ("DEV\\app-admin", "Conf", "", "configuration.reveal", "NOT_APPLICATION_USER"),
                ("DEV\\app-admin", "Conf", "configuration.set", "configuration.set", ""),
                ("DEV\\app-admin", "Host", "", "credentials.logon", "HOST_INITIATED_OFF"),
                ("DEV\\user", "Host", "", "credentials.logon", "HOST_INITIATED_OFF"),
                (
                    "DEV\\user",
                    "Ind",
                    "credentials.logon",
                    "credentials.logon",
                    "HOST_INITIATED_OFF",
                ),
                ("DEV\\user", "Ind", "mapping.create", "mapping.create", ""),
                ("DEV\\user", "Grp", "mapping.create", "mapping.create", "GROUP_MAPPING_PROTECTED"),
                ("DEV\\app-admin", "Grp", "mapping.create", "mapping.create", ""),
                (
                    "DEV\\user",
                    "Ind",
                    "mapping.list-members",
                    "mapping.list-members",
                    "NOT_APPLICATION_ADMINISTRATOR",
                ),
                ("DEV\\user", "Ind", "ticket.issue", "ticket.issue", "TICKETS_NOT_ALLOWED"),
                (
                    "DEV\\user",
                    "Ind",
                    "ticket.redeem",
                    "ticket.redeem",
                    "TICKETS_NOT_ALLOWED_BY_SYSTEM",
                ),
                ("DEV\\user", "Ind", "system.update", "system.update", "NOT_SSO_ADMINISTRATOR"),
                ("DEV\\admin", "Ind", "system.update", "system.update", ""),
                ("DEV\\Application Users", "Ind", "", "credentials.reveal", "NOT_AUTHENTICATED"),
                ("DEV\\never heard of", "Ind", "", "credentials.reveal", "NOT_APPLICATION_USER"),
            ] {
                assert_eq!(
                    of(account, application, action).await,
                    (wanted.to_owned(), reason.to_owned()),
                    "{account} {application} {action}"
                );
            }
            for action in sso_server::access::Action::ALL {
                let (named, _) = of("DEV\\user", "Ind", action.as_str()).await;
                assert_eq!(named, action.as_str());
            }
        });
    });
}

#[test]
fn the_mapping_of_a_group_and_of_an_external_user_are_named() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            create_application(system, application("Grp", Kind::Group)).await;
            create_application(system, application("Host", Kind::HostGroup)).await;
            map(
                system,
                "app-admin",
                new_mapping("Grp", "DEV\\Application Users", "SHARED", Some("pw")),
            )
            .await
            .expect("mapped");
            map(system, "app-admin", new_mapping("Host", "", "JOB1", Some("pw")))
                .await
                .expect("mapped");
            let explained =
                explain(system, "app-admin", "DEV\\user", "Grp", "").await.expect("explained");
            assert!(explained.allowed);
            assert_eq!(
                (explained.mapping_account.as_str(), explained.external_user.as_str()),
                ("DEV\\Application Users", "SHARED")
            );
            let global = v1::GlobalInfo { host_initiated_allowed: true, ..Default::default() };
            let message = v1::UpdateGlobalInfoRequest {
                global_info: Some(global),
                update_mask: Some(prost_types::FieldMask {
                    paths: vec!["host_initiated_allowed".into()],
                }),
            };
            let done: Result<v1::UpdateGlobalInfoResponse, _> =
                ask(system, "admin", "System/UpdateGlobalInfo", &message).await;
            done.expect("allowed");
            let mut question = v1::ExplainRequest {
                account: "DEV\\app-admin".into(),
                application: "Host".into(),
                action: "credentials.logon".into(),
                external_user: "job1".into(),
            };
            let explained: v1::ExplainResponse =
                ask(system, "app-admin", "Access/Explain", &question).await.expect("explained");
            assert_eq!(first_failure(&explained), None);
            assert_eq!(
                (explained.mapping_account.as_str(), explained.external_user.as_str()),
                ("DEV\\user", "JOB1")
            );
            question.external_user = "JOB2".into();
            let explained: v1::ExplainResponse =
                ask(system, "app-admin", "Access/Explain", &question).await.expect("explained");
            assert_eq!(first_failure(&explained), Some("CREDENTIALS_MISMATCH"));
        });
    });
}
