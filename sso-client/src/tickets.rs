//! Tickets: thin and typed over `sso.v1.Tickets`; ticket and token are secret texts.

use std::mem;

use prost_types::Timestamp;
use sso_core::secret::SecretText;
use sso_proto::v1::{
    InspectTicketRequest, InspectTicketResponse, IssueTicketRequest, RedeemTicketRequest, Ticket,
    UserToken, tickets_client::TicketsClient,
};
use tonic::transport::Channel;

use crate::{
    Client, ClientError, Credentials,
    lookup::{MAX_ANSWER, present},
};

/// Issues, redeems and inspects tickets.
#[derive(Clone, Debug)]
pub struct Tickets {
    client: Client,
}

/// A ticket that was issued; its text is redacted in `Debug`.
#[derive(Clone, Debug, PartialEq)]
pub struct IssuedTicket {
    /// Letters, digits, dots, hyphens and underscores only.
    pub ticket: SecretText,
    /// Whom it was issued to, `DOMAIN\name`.
    pub account: String,
    /// Names the ticket in the audit.
    pub id: String,
    /// By the clock of the server.
    pub issued_at: Option<Timestamp>,
    /// By the ticket timeout of the system; an application may have another one.
    pub expires_at: Option<Timestamp>,
}

/// What a ticket was redeemed for; values are redacted in `Debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redeemed {
    /// The credentials mapped to the account.
    pub credentials: Credentials,
    /// Whom the ticket was issued to, `DOMAIN\name`.
    pub account: String,
    /// Names the ticket in the audit.
    pub ticket_id: String,
}

impl Tickets {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Issues a ticket for the caller, or for the end user of `user_token` where the caller is a
    /// trusted host. With an audience only that application takes it.
    ///
    /// # Errors
    /// See [`ClientError`]; the same for every method here.
    pub async fn issue(
        &self,
        audience: Option<&str>,
        user_token: Option<&SecretText>,
    ) -> Result<IssuedTicket, ClientError> {
        let message = IssueTicketRequest {
            application: audience.unwrap_or_default().to_owned(),
            // Expose: into a message that wipes itself when it has been sent.
            user_token: user_token.map(|token| UserToken { text: token.expose().to_owned() }),
        };
        let answer = self
            .client
            .read(message, |channel, request| async move { stub(channel).issue(request).await })
            .await?;
        let mut ticket = answer.ticket.ok_or_else(|| ClientError::incomplete("ticket"))?;
        Ok(IssuedTicket {
            ticket: SecretText::new(mem::take(&mut ticket.text)),
            account: answer.account,
            id: answer.id,
            issued_at: answer.issued_at,
            expires_at: answer.expires_at,
        })
    }

    /// Redeems a ticket for the credentials mapped to the account it was issued to. With a sender it is
    /// validated that the ticket was issued to them. Sent once: a ticket may be good for one time only.
    pub async fn redeem(
        &self,
        application: &str,
        ticket: &SecretText,
        sender: Option<&str>,
        refresh: bool,
    ) -> Result<Redeemed, ClientError> {
        let message = RedeemTicketRequest {
            application: application.to_owned(),
            ticket: Some(sent(ticket)),
            sender: sender.map(str::to_owned),
            refresh,
        };
        let answer = self
            .client
            .write(message, |channel, request| async move { stub(channel).redeem(request).await })
            .await?;
        Ok(Redeemed {
            credentials: present(answer.credentials)?,
            account: answer.account,
            ticket_id: answer.ticket_id,
        })
    }

    /// What a ticket says, without redeeming it.
    pub async fn inspect(&self, ticket: &SecretText) -> Result<InspectTicketResponse, ClientError> {
        let message = InspectTicketRequest { ticket: Some(sent(ticket)) };
        self.client
            .read(message, |channel, request| async move { stub(channel).inspect(request).await })
            .await
    }
}

fn sent(ticket: &SecretText) -> Ticket {
    // Expose: into a message that wipes itself when it has been sent.
    Ticket { text: ticket.expose().to_owned() }
}

fn stub(channel: Channel) -> TicketsClient<Channel> {
    TicketsClient::new(channel).max_decoding_message_size(MAX_ANSWER)
}
