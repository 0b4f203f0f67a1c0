//! What callers do.

use prost::Message;
use sso_core::connector::{ClientTls, ConnectOptions, connect_channel};
use sso_proto::v1;
use tonic::codegen::http::uri::PathAndQuery;

use super::{
    call::{NUMBER, Payload, Random, call},
    drive::{Job, Part},
    stand::{FIELD, HOSTED, MEMBERS, ONCE, ONCE_MAPPINGS, OWN, STORE, Stand},
};

/// Tickets that are redeemed once: so many for each second of a round, which is more than can be.
const ONCE_PER_SECOND: u64 = 40_000;

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// `ConfigStore.Get` in runtime mode, of any configuration.
    GetConfiguration,
    /// `Lookup.GetCredentials` of the caller's own mapping.
    GetCredentials,
    /// `Lookup.LogonExternalUser` of any mapping, its credentials validated, with a ticket.
    Logon,
    /// `Tickets.Issue`.
    Issue,
    /// `Tickets.Redeem` of tickets that serve until they expire, of any account.
    Redeem,
    /// `Tickets.Redeem` of tickets that serve once.
    RedeemOneTime,
    /// `ConfigStore.Set` of any configuration.
    SetConfiguration,
    /// Of a hundred requests: 60 get configuration, 20 get credentials, 8 issue, 8 redeem, 4 set.
    Mixed,
}

impl Workload {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::GetConfiguration,
        Self::GetCredentials,
        Self::Logon,
        Self::Issue,
        Self::Redeem,
        Self::RedeemOneTime,
        Self::SetConfiguration,
        Self::Mixed,
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GetConfiguration => "get-configuration",
            Self::GetCredentials => "get-credentials",
            Self::Logon => "logon",
            Self::Issue => "issue",
            Self::Redeem => "redeem",
            Self::RedeemOneTime => "redeem-one-time",
            Self::SetConfiguration => "set-configuration",
            Self::Mixed => "mixed",
        }
    }

    /// The workload of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == name)
    }

    /// Answered from memory, where the caches are warm, and so to be compared with the echo.
    #[must_use]
    pub fn reads(self) -> bool {
        !matches!(self, Self::RedeemOneTime | Self::SetConfiguration)
    }

    /// The applications it needs filled.
    #[must_use]
    pub fn touches(self) -> &'static [&'static str] {
        match self {
            Self::GetConfiguration | Self::SetConfiguration => &[STORE],
            Self::GetCredentials | Self::Issue | Self::Redeem => &[OWN],
            Self::Logon => &[HOSTED],
            Self::RedeemOneTime => &[ONCE],
            Self::Mixed => &[STORE, OWN],
        }
    }

    /// Whether users ask, or trusted hosts.
    fn of_users(self) -> bool {
        matches!(self, Self::GetConfiguration | Self::GetCredentials | Self::Issue)
    }

    fn jobs(self, stand: &Stand, seconds: u64) -> Vec<Job> {
        let mappings = stand.wanted.mappings.max(1);
        let job = |path, payload| Job { path: PathAndQuery::from_static(path), payload, share: 1 };
        let one = match self {
            Self::GetConfiguration => {
                let message = v1::GetConfigurationRequest {
                    application: STORE.into(),
                    identifier: format!("C{NUMBER}"),
                    mode: v1::ReadMode::Runtime.into(),
                    fields: Vec::new(),
                };
                job("/sso.v1.ConfigStore/Get", Payload::numbered(message.encode_to_vec(), mappings))
            }
            Self::GetCredentials => {
                let message = v1::GetCredentialsRequest { application: OWN.into(), refresh: false };
                job("/sso.v1.Lookup/GetCredentials", Payload::Same(message.encode_to_vec().into()))
            }
            Self::Logon => {
                let values = vec!["s".repeat(stand.wanted.value)];
                let message = v1::LogonExternalUserRequest {
                    application: HOSTED.into(),
                    external_user: format!("E{NUMBER}"),
                    credentials: Some(v1::CredentialValues { values }),
                    ..Default::default()
                };
                let payload = Payload::numbered(message.encode_to_vec(), mappings);
                job("/sso.v1.Lookup/LogonExternalUser", payload)
            }
            Self::Issue => {
                let message = v1::IssueTicketRequest::default();
                job("/sso.v1.Tickets/Issue", Payload::Same(message.encode_to_vec().into()))
            }
            Self::Redeem => {
                let accounts = mappings.min(MEMBERS);
                let tickets = stand.tickets(OWN, accounts.max(1000), accounts);
                job("/sso.v1.Tickets/Redeem", Payload::Any(tickets.into()))
            }
            Self::RedeemOneTime => {
                let count = ONCE_PER_SECOND * seconds.max(1);
                let tickets = stand.tickets(ONCE, count, ONCE_MAPPINGS);
                job("/sso.v1.Tickets/Redeem", Payload::once(tickets))
            }
            Self::SetConfiguration => {
                let value = v1::NewValue { value: Some("t".repeat(stand.wanted.value)) };
                let message = v1::SetConfigurationRequest {
                    application: STORE.into(),
                    identifier: format!("C{NUMBER}"),
                    values: [(FIELD.to_owned(), value)].into(),
                    ..Default::default()
                };
                job("/sso.v1.ConfigStore/Set", Payload::numbered(message.encode_to_vec(), mappings))
            }
            Self::Mixed => {
                let shares = [
                    (Self::GetConfiguration, 60),
                    (Self::GetCredentials, 20),
                    (Self::Issue, 8),
                    (Self::Redeem, 8),
                    (Self::SetConfiguration, 4),
                ];
                return shares
                    .into_iter()
                    .flat_map(|(workload, share)| {
                        let jobs = workload.jobs(stand, seconds).into_iter();
                        jobs.map(move |job| Job { share, ..job })
                    })
                    .collect();
            }
        };
        vec![one]
    }

    /// The callers of a round of so many seconds. Tickets that serve once are made anew for each round.
    #[must_use]
    pub fn parts(
        self,
        stand: &Stand,
        connections: usize,
        in_flight: usize,
        seconds: u64,
    ) -> Vec<Part> {
        let callers = if self.of_users() { stand.users() } else { stand.agents() };
        let jobs = self.jobs(stand, seconds);
        vec![Part { url: stand.url(), callers, connections, in_flight, jobs }]
    }
}

/// Bytes of the requests and answers of parts, on average by the shares of their jobs: what an echo is to
/// be compared with.
///
/// # Errors
/// When a call is refused.
///
/// # Panics
/// When a part has no callers.
pub async fn sizes(parts: &[Part]) -> Result<(usize, usize), String> {
    let random = Random::new(1);
    let (mut request, mut answer, mut shares) = (0, 0, 0);
    for part in parts {
        let tls: &ClientTls = part.callers.first().expect("a caller");
        let options = ConnectOptions::default();
        let channel = connect_channel(&part.url, tls.clone(), options).expect("an address");
        for job in &part.jobs {
            let Some(message) = job.payload.next(&random) else { continue };
            let share = usize::try_from(job.share).unwrap_or_default();
            request += message.len() * share;
            let answered = call(&channel, &job.path, message).await;
            answer += share
                * answered.map_err(|status| {
                    format!("{}: {:?}: {}", job.path, status.code(), status.message())
                })?;
            shares += share;
        }
    }
    Ok((request / shares.max(1), answer / shares.max(1)))
}
