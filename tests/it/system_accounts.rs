//! The accounts that the system itself names: who may take the place of whom, and what configuration
//! readers, auditors and trusted hosts may do (ESSO.md 2.1; 14.3, row 32).

use sso_proto::{
    Reason,
    v1::{
        self, applications_client::ApplicationsClient, audit_client::AuditClient,
        config_store_client::ConfigStoreClient, mappings_client::MappingsClient,
        system_client::SystemClient,
    },
};
use sso_tests::{everywhere::on_each_database, raw, system::System};
use tonic::{Response, Status, transport::Channel};

use crate::{applications::refused, asking::application};

const APPLICATION: &str = "Orders";

fn system_client(system: &System, who: &str) -> SystemClient<Channel> {
    SystemClient::new(raw::channel(system, 1, who))
}

async fn update(
    client: &mut SystemClient<Channel>,
    path: &str,
    accounts: &[&str],
) -> Result<v1::GlobalInfo, Status> {
    let accounts: Vec<_> = accounts.iter().map(|&account| account.to_owned()).collect();
    let mut info = v1::GlobalInfo::default();
    let part = match path {
        "sso_administrators" => &mut info.sso_administrators,
        "affiliate_administrators" => &mut info.affiliate_administrators,
        "trusted_hosts" => &mut info.trusted_hosts,
        "configuration_readers" => &mut info.configuration_readers,
        "auditors" => &mut info.auditors,
        other => panic!("{other}"),
    };
    *part = accounts;
    let request = v1::UpdateGlobalInfoRequest {
        global_info: Some(info),
        update_mask: Some(prost_types::FieldMask { paths: vec![path.into()] }),
    };
    let answer = client.update_global_info(request).await.map(Response::into_inner)?;
    Ok(answer.global_info.expect("settings"))
}

async fn status(system: &System, who: &str) -> v1::CallerStatus {
    let status = system_client(system, who).get_server_status(v1::GetServerStatusRequest {}).await;
    status.expect("a status").into_inner().caller.expect("a caller")
}

#[test]
fn an_individual_sso_administrator_gives_way_only_to_a_group_it_is_in() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let mut admin = system_client(system, "admin");
            admin.disable(v1::DisableSystemRequest {}).await.expect("disabled");
            let (group, path) = ("DEV\\SSO Administrators", "sso_administrators");
            update(&mut admin, path, &[group, "DEV\\user"]).await.expect("added");
            for other in ["DEV\\other", "DEV\\Integration Hosts"] {
                let replaced = update(&mut admin, path, &[group, other]).await;
                assert_eq!(refused(replaced), Reason::IndividualForIndividual, "{other}");
            }
            // A group that the account is in; and nobody in its place.
            let users = "DEV\\Application Users";
            let info = update(&mut admin, path, &[group, users]).await.expect("replaced");
            assert_eq!(info.sso_administrators, [group, users]);
            update(&mut admin, path, &[group, users, "DEV\\user"]).await.expect("added");
            update(&mut admin, path, &[group]).await.expect("removed");
            // Oneself is no exception.
            update(&mut admin, path, &["DEV\\admin"]).await.expect("from group to individual");
            let gone = update(&mut admin, path, &["DEV\\other"]).await;
            assert_eq!(refused(gone), Reason::CallerNotInAccounts);
            update(&mut admin, path, &[group]).await.expect("a group the caller is in");
            admin.enable(v1::EnableSystemRequest {}).await.expect("enabled");
            let log = system.log_of_server(1);
            let warned = |line: &str| line.contains("event=11051 ") && line.contains("DEV\\admin");
            assert!(log.lines().any(warned), "an individual is warned about");
        });
    });
}

#[test]
fn readers_auditors_and_trusted_hosts_change_while_the_system_runs() {
    on_each_database(|system, runtime| {
        system.create_application(APPLICATION, &["Open", "Closed:masked"]);
        let set = ["config", "set", APPLICATION, "One", "--values", "-"];
        let set = system.sso_with_input("app-admin", &set, r#"{"Open":"o","Closed":"c"}"#);
        assert!(set.status.success());
        runtime.block_on(async {
            let mut admin = system_client(system, "admin");
            // What the settings of the servers named for a new system.
            assert!(status(system, "host").await.trusted_host);
            assert!(!status(system, "admin").await.trusted_host, "no administrator is one");
            let get = v1::GetConfigurationRequest {
                application: APPLICATION.into(),
                identifier: "One".into(),
                ..Default::default()
            };
            let reveal =
                v1::GetConfigurationRequest { mode: v1::ReadMode::Runtime.into(), ..get.clone() };
            let mut store = ConfigStoreClient::new(raw::channel(system, 1, "host"));
            let mut audit = AuditClient::new(raw::channel(system, 1, "host"));
            let denied = store.get(get.clone()).await;
            assert_eq!(refused(denied), Reason::NotApplicationAdministrator);
            let everything = v1::ListAuditRequest::default;
            assert_eq!(refused(audit.list(everything()).await), Reason::NotSsoAdministrator);

            let group = "DEV\\Integration Hosts";
            for path in ["configuration_readers", "auditors"] {
                let bad = update(&mut admin, path, &["Everyone"]).await;
                assert_eq!(refused(bad), Reason::BuiltInAccount);
                update(&mut admin, path, &[group]).await.expect("changed while enabled");
            }
            update(&mut admin, "trusted_hosts", &[]).await.expect("changed while enabled");
            let now = status(system, "host").await;
            assert!(now.configuration_reader && now.auditor && !now.trusted_host);

            // A reader reads what is not masked, of every application, and nothing else.
            let read = store.get(get.clone()).await.expect("read").into_inner();
            let read = read.configuration.expect("a configuration");
            assert_eq!(read.values.keys().collect::<Vec<_>>(), ["Open"]);
            assert_eq!(read.masked, ["Closed"]);
            let list = v1::ListIdentifiersRequest {
                application: APPLICATION.into(),
                ..Default::default()
            };
            assert_eq!(
                store.list_identifiers(list).await.expect("a list").into_inner().identifiers.len(),
                1
            );
            assert_eq!(refused(store.get(reveal).await), Reason::NotApplicationUser);
            let value = v1::NewValue { value: Some("x".into()) };
            let write = v1::SetConfigurationRequest {
                application: APPLICATION.into(),
                identifier: "One".into(),
                values: [("Open".to_owned(), value)].into(),
                ..Default::default()
            };
            assert_eq!(refused(store.set(write).await), Reason::NotApplicationAdministrator);
            let nowhere = v1::GetConfigurationRequest { application: "Nowhere".into(), ..get };
            assert_eq!(refused(store.get(nowhere).await), Reason::ApplicationNotFound);
            let mut applications = ApplicationsClient::new(raw::channel(system, 1, "host"));
            let by = v1::GetApplicationRequest { name: APPLICATION.into() };
            assert_eq!(refused(applications.get(by).await), Reason::NotApplicationUser);

            // An auditor reads every record, and changes nothing.
            let records = audit.list(everything()).await.expect("records").into_inner().records;
            assert!(records.iter().any(|record| record.action == "system.update"));
            let of = v1::ListAuditRequest { application: APPLICATION.into(), ..Default::default() };
            assert!(!audit.list(of).await.expect("records").into_inner().records.is_empty());
            let mut host = system_client(system, "host");
            let update = update(&mut host, "auditors", &[]).await;
            assert_eq!(refused(update), Reason::NotSsoAdministrator);
        });
    });
}

#[test]
fn the_audit_of_a_deleted_application_says_what_went_with_it() {
    on_each_database(|system, runtime| {
        runtime.block_on(async {
            let mut admin = ApplicationsClient::new(raw::channel(system, 1, "admin"));
            let mut mappings = MappingsClient::new(raw::channel(system, 1, "admin"));
            for name in ["Empty", "Mapped"] {
                let new = Some(application(name, v1::ApplicationType::Individual));
                let new = v1::CreateApplicationRequest { application: new };
                admin.create(new).await.expect("created");
            }
            let mapping = v1::Mapping {
                application: "Mapped".into(),
                account: "DEV\\user".into(),
                external_user: "USR01".into(),
                ..Default::default()
            };
            let mapping = v1::CreateMappingRequest { mapping: Some(mapping), ..Default::default() };
            mappings.create(mapping).await.expect("mapped");
            for name in ["Empty", "Mapped"] {
                let delete = v1::DeleteApplicationRequest { name: name.into() };
                admin.delete(delete).await.expect("deleted");
            }
            let mut audit = AuditClient::new(raw::channel(system, 1, "admin"));
            let deleted =
                v1::ListAuditRequest { action: "application.delete".into(), ..Default::default() };
            let records = audit.list(deleted).await.expect("records").into_inner().records;
            let told: Vec<_> =
                records.iter().map(|it| (it.application.as_str(), it.detail.as_str())).collect();
            assert_eq!(told, [("Mapped", "with 1 mapping"), ("Empty", "")]);
        });
    });
}
