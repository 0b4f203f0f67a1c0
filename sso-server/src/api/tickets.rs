//! `sso.v1.Tickets`.

use sso_core::secret::SecretText;
use sso_proto::v1::{self, tickets_server::Tickets};
use tonic::{Request, Response, Status};

use super::{
    Handlers,
    convert::{credentials, missing, optional, ticket, timestamp},
    entry::call_of,
    status::about,
};
use crate::{
    access::Action,
    error::Error,
    model::{Account, ApplicationName},
    tickets::{Inspected, Issued, Redemption, Wanted},
};

#[tonic::async_trait]
impl Tickets for Handlers {
    async fn issue(
        &self,
        request: Request<v1::IssueTicketRequest>,
    ) -> Result<Response<v1::IssueTicketResponse>, Status> {
        let (call, message) = call_of(request)?;
        let application = message.application.clone();
        let forwards = message.user_token.is_some();
        let refused = if forwards { Action::TicketForward } else { Action::TicketIssue };
        let work = async {
            let issued = self.house.tickets.issue(&call, &wanted(message)?).await?;
            Ok(issued_response(&issued))
        };
        let answer = self.answer(&call, refused, &application, work).await?;
        Ok(about(Response::new(answer), Action::TicketIssue, &application))
    }

    async fn redeem(
        &self,
        request: Request<v1::RedeemTicketRequest>,
    ) -> Result<Response<v1::RedeemTicketResponse>, Status> {
        let (call, message) = call_of(request)?;
        let application = message.application.clone();
        self.respond(&call, Action::TicketRedeem, &application, async {
            let redeemed = self.house.tickets.redeem(&call, &redemption(message)?).await?;
            Ok(v1::RedeemTicketResponse {
                credentials: Some(credentials(&redeemed.credentials)),
                account: redeemed.account.as_str().to_owned(),
                ticket_id: redeemed.ticket.to_string(),
            })
        })
        .await
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectTicketRequest>,
    ) -> Result<Response<v1::InspectTicketResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::TicketInspect, "", async {
            let text = text(message.ticket)?;
            Ok(inspected(self.house.tickets.inspect(&call, &text).await?))
        })
        .await
    }
}

fn wanted(message: v1::IssueTicketRequest) -> Result<Wanted, Error> {
    let application = optional(&message.application, ApplicationName::parse)?;
    let token = |mut token: v1::UserToken| SecretText::new(std::mem::take(&mut token.text));
    Ok(Wanted { application, user_token: message.user_token.map(token) })
}

fn redemption(message: v1::RedeemTicketRequest) -> Result<Redemption, Error> {
    Ok(Redemption {
        application: ApplicationName::parse(&message.application)?,
        ticket: text(message.ticket)?,
        sender: message.sender.as_deref().map(Account::parse).transpose()?,
        refresh: message.refresh,
    })
}

fn text(ticket: Option<v1::Ticket>) -> Result<SecretText, Error> {
    let mut ticket = ticket.ok_or_else(|| missing("ticket"))?;
    Ok(SecretText::new(std::mem::take(&mut ticket.text)))
}

fn issued_response(issued: &Issued) -> v1::IssueTicketResponse {
    v1::IssueTicketResponse {
        ticket: Some(ticket(issued)),
        account: issued.ticket.account.as_str().to_owned(),
        id: issued.ticket.id.to_string(),
        issued_at: Some(timestamp(issued.ticket.issued_at)),
        expires_at: Some(timestamp(issued.ticket.expires_at)),
    }
}

fn inspected(inspected: Inspected) -> v1::InspectTicketResponse {
    let Inspected { ticket, generation, expired, application } = inspected;
    let application = application.map(|name| name.as_str().to_owned());
    v1::InspectTicketResponse {
        id: ticket.id.to_string(),
        account: ticket.account.as_str().to_owned(),
        server: ticket.server,
        issued_at: Some(timestamp(ticket.issued_at)),
        expires_at: Some(timestamp(ticket.expires_at)),
        expired,
        application: match (ticket.audience, application) {
            (Some(_), name) => name.unwrap_or_else(|| "(deleted)".to_owned()),
            (None, _) => String::new(),
        },
        validation_required: ticket.validation_required,
        generation,
    }
}
