//! Systems with mappings, asked over raw gRPC: what the tests of tickets and logons share.

use std::fmt::Debug;

use prost::Message;
use sqlx::{Connection as _, Row as _};
use sso_core::{key_ring::KeyRing, seal::Place};
use sso_master::{keystore::Keystore, serve, settings::Settings};
use sso_proto::{Reason, Refusal, v1};
use sso_server::model::{Ticket, ticket_text};
use sso_tests::{raw, system::System};
use tonic::transport::Channel;

/// Its administrators are `app-admin` and `host`; its user `user` is `USR01` with `secret-1`.
pub(crate) const APPLICATION: &str = "Mainframe";
pub(crate) const PASSWORD: &str = "secret-1";

/// Asks one method as somebody, at one server.
pub(crate) async fn ask<A: Message + Default>(
    channel: &Channel,
    method: &str,
    message: impl Message,
) -> Result<A, Refusal> {
    let answer = raw::call(channel, &format!("/sso.v1.{method}"), message.encode_to_vec()).await;
    match answer {
        Ok(bytes) => Ok(A::decode(&bytes[..]).expect("an answer")),
        Err(status) => {
            let refusal = Refusal::from_status(&status).unwrap_or_else(|| panic!("{status:?}"));
            assert_eq!(status.code(), refusal.reason.code(), "{refusal:?}");
            assert!(!refusal.message.contains(PASSWORD), "{refusal:?}");
            Err(refusal)
        }
    }
}

/// The reason that something was refused for.
pub(crate) fn reason<A: Debug>(answer: Result<A, Refusal>) -> Reason {
    answer.expect_err("a refusal").reason
}

/// A system, and a channel for each account at server 1.
pub(crate) struct Desk<'s> {
    pub(crate) system: &'s System,
    pub(crate) admin: Channel,
    pub(crate) app_admin: Channel,
    pub(crate) user: Channel,
    pub(crate) host: Channel,
}

impl<'s> Desk<'s> {
    /// Nothing is set up. Needs a runtime.
    pub(crate) fn bare(system: &'s System) -> Self {
        let channel = |name| raw::channel(system, 1, name);
        Self {
            system,
            admin: channel("admin"),
            app_admin: channel("app-admin"),
            user: channel("user"),
            host: channel("host"),
        }
    }

    /// Tickets are allowed and validated; `host` is trusted; [`APPLICATION`] takes tickets, validated.
    pub(crate) async fn open(system: &'s System) -> Self {
        let desk = Self::bare(system);
        let info = v1::GlobalInfo {
            tickets_allowed: true,
            tickets_validated: true,
            host_initiated_allowed: true,
            trusted_hosts: vec!["DEV\\host".into()],
            ..Default::default()
        };
        let parts =
            ["tickets_allowed", "tickets_validated", "host_initiated_allowed", "trusted_hosts"];
        desk.set_global(info, &parts).await;
        desk.create(application(APPLICATION)).await;
        desk.map(APPLICATION, "DEV\\user", "USR01", Some(PASSWORD)).await;
        desk
    }

    pub(crate) async fn set_global(&self, info: v1::GlobalInfo, paths: &[&str]) {
        let message =
            v1::UpdateGlobalInfoRequest { global_info: Some(info), update_mask: mask(paths) };
        let _: v1::UpdateGlobalInfoResponse =
            ask(&self.admin, "System/UpdateGlobalInfo", message).await.expect("changed");
    }

    pub(crate) async fn create(&self, application: v1::Application) {
        let message = v1::CreateApplicationRequest { application: Some(application) };
        let _: v1::CreateApplicationResponse =
            ask(&self.admin, "Applications/Create", message).await.expect("created");
    }

    /// Changes these parts of an application.
    pub(crate) async fn update(&self, application: v1::Application, paths: &[&str]) {
        let application = Some(application);
        let message = v1::UpdateApplicationRequest { application, update_mask: mask(paths) };
        let _: v1::UpdateApplicationResponse =
            ask(&self.admin, "Applications/Update", message).await.expect("updated");
    }

    pub(crate) async fn delete(&self, name: &str) {
        let message = v1::DeleteApplicationRequest { name: name.into() };
        let _: v1::DeleteApplicationResponse =
            ask(&self.admin, "Applications/Delete", message).await.expect("deleted");
    }

    /// An enabled mapping, with one credential where one is given.
    pub(crate) async fn map(
        &self,
        application: &str,
        account: &str,
        external_user: &str,
        password: Option<&str>,
    ) {
        let mapping = v1::Mapping {
            application: application.into(),
            account: account.into(),
            external_user: external_user.into(),
            ..Default::default()
        };
        let credentials = password.map(|it| v1::CredentialValues { values: vec![it.to_owned()] });
        let message =
            v1::CreateMappingRequest { mapping: Some(mapping), credentials, enable: true };
        let _: v1::CreateMappingResponse =
            ask(&self.admin, "Mappings/Create", message).await.expect("mapped");
    }

    /// The text of a ticket for `user`.
    pub(crate) async fn ticket(&self) -> String {
        text(issue(&self.user, "").await.expect("a ticket"))
    }

    /// How many such records are in the audit.
    pub(crate) async fn audited(&self, wanted: Audited) -> i64 {
        let message = v1::ListAuditRequest {
            action: wanted.action.into(),
            outcome: wanted.outcome.into(),
            page_size: 1000,
            ..Default::default()
        };
        let list: v1::ListAuditResponse =
            ask(&self.admin, "Audit/List", message).await.expect("records");
        let counts = |it: &&v1::AuditRecord| {
            it.reason.contains(wanted.reason) && it.detail.contains(wanted.detail)
        };
        i64::try_from(list.records.iter().filter(counts).count()).expect("few")
    }

    /// How many rows there are.
    pub(crate) async fn count(&self, table_where: &'static str) -> i64 {
        sqlx::any::install_default_drivers();
        let url = raw::database_url(self.system);
        let mut database = sqlx::AnyConnection::connect(&url).await.expect("the database");
        let statement = format!("SELECT COUNT(*) FROM {table_where}");
        let statement = sqlx::AssertSqlSafe(statement);
        sqlx::query(statement).fetch_one(&mut database).await.expect("a count").get(0)
    }
}

/// Reveals of credentials for tickets that stand in the audit.
pub(crate) const REDEEMED: Audited = Audited::done("ticket.redeem");

/// Records of this action and outcome with these parts in reason and detail.
#[derive(Clone, Copy)]
pub(crate) struct Audited {
    pub(crate) action: &'static str,
    pub(crate) outcome: v1::AuditOutcome,
    pub(crate) reason: &'static str,
    pub(crate) detail: &'static str,
}

impl Audited {
    pub(crate) const fn done(action: &'static str) -> Self {
        Self { action, outcome: v1::AuditOutcome::Done, reason: "", detail: "" }
    }
}

/// An enabled individual application of two fields that takes tickets.
pub(crate) fn application(name: &str) -> v1::Application {
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
        administrator_accounts: vec![
            "DEV\\Application Administrators".into(),
            "DEV\\Integration Hosts".into(),
        ],
        fields: vec![field(0, "User", false), field(1, "Password", true)],
        allow_tickets: Some(true),
        enabled: true,
        ..Default::default()
    }
}

fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() })
}

/// A ticket, for an application where one is named.
pub(crate) async fn issue(
    channel: &Channel,
    application: &str,
) -> Result<v1::IssueTicketResponse, Refusal> {
    let message = v1::IssueTicketRequest { application: application.into(), ..Default::default() };
    ask(channel, "Tickets/Issue", message).await
}

pub(crate) fn text(mut issued: v1::IssueTicketResponse) -> String {
    std::mem::take(&mut issued.ticket.as_mut().expect("a ticket").text)
}

/// Redeems at [`APPLICATION`]; without a sender in the form that does not validate.
pub(crate) async fn redeem(
    channel: &Channel,
    ticket: &str,
    sender: Option<&str>,
) -> Result<v1::RedeemTicketResponse, Refusal> {
    redeem_at(channel, APPLICATION, ticket, sender).await
}

pub(crate) async fn redeem_at(
    channel: &Channel,
    application: &str,
    ticket: &str,
    sender: Option<&str>,
) -> Result<v1::RedeemTicketResponse, Refusal> {
    let message = v1::RedeemTicketRequest {
        application: application.into(),
        ticket: Some(v1::Ticket { text: ticket.into() }),
        sender: sender.map(str::to_owned),
        refresh: false,
    };
    ask(channel, "Tickets/Redeem", message).await
}

/// The external user and the one credential of an answer.
pub(crate) fn revealed(answer: v1::RedeemTicketResponse) -> (String, String) {
    let mut found = answer.credentials.expect("credentials");
    let values = std::mem::take(&mut found.credentials.as_mut().expect("values").values);
    let [value] = <[String; 1]>::try_from(values).expect("one value");
    (found.external_user, value)
}

/// The keys of the system's master: for tickets that no server would issue.
pub(crate) fn master_keys(system: &System) -> KeyRing {
    let settings = Settings::load(&system.installation().master_settings()).expect("settings");
    let keystore = Keystore::read(&settings.keystore).expect("a keystore");
    serve::open(&settings, &keystore).expect("unlocked").ring
}

/// The text of a ticket, sealed as a server would.
pub(crate) fn forged(keys: &KeyRing, ticket: &Ticket) -> String {
    let place = Place { table: "tickets", column: "ticket", row: &[], application: &[] };
    let payload = ticket.encode().expect("a payload");
    let sealed = keys.seal(&place, payload.expose()).expect("sealed");
    ticket_text(&sealed).expect("a text").expose().to_owned()
}
