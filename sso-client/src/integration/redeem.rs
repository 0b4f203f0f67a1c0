//! The send side's sign-on: from the ticket in a message to credentials of the outside system.

use sso_proto::Reason;

use super::{Again, MessageContext, SendPort, again};
use crate::{Client, ClientError, Redeemed};

/// Why there are no credentials for a message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedeemError {
    /// The message travels for nobody.
    #[error(
        "the message has no ticket: whoever made it of another message has to copy the sign-on \
         (SSOTicket and OriginatorSID)"
    )]
    NoSignOn,
    /// The port names no affiliate application.
    #[error(
        "the send port '{port}' names no application to redeem tickets for: AffiliateApplication"
    )]
    NoApplication {
        /// The port.
        port: String,
    },
    /// The port names an application that the host does not allow.
    #[error(
        "the send port '{port}' names the application {application}, whose credentials this host does \
         not send anywhere: the settings of the host say which it does"
    )]
    NotAllowed {
        /// The port.
        port: String,
        /// What it names.
        application: String,
    },
    /// The SSO server refused, or could not be reached.
    #[error("the ticket of {originator} was not redeemed for {application}: {source}")]
    Refused {
        /// Whom the message is from.
        originator: String,
        /// The affiliate application of the port.
        application: String,
        /// What came back.
        source: ClientError,
    },
}

impl RedeemError {
    /// Whether trying again with the same message helps. Where a ticket may be redeemed once, an
    /// attempt whose answer was lost has used it up: the next one is refused with `TICKET_REDEEMED`.
    #[must_use]
    pub fn again(&self) -> Again {
        match self {
            Self::NoSignOn => Again::Never,
            Self::NoApplication { .. } | Self::NotAllowed { .. } => Again::AfterRepair,
            Self::Refused { .. } if self.ticket_is_spent() => Again::Never,
            Self::Refused { .. } if self.reason() == Some(Reason::TicketNotYetValid) => {
                Again::Later
            }
            Self::Refused { source, .. } => again::of_call(source),
        }
    }

    /// The reason of the SSO server, where it gave one.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused { source, .. } => source.refusal()?.known(),
            Self::NoSignOn | Self::NoApplication { .. } | Self::NotAllowed { .. } => None,
        }
    }

    /// Whether the ticket is worth nothing any more, and a new one for the same user would do.
    #[must_use]
    pub fn ticket_is_spent(&self) -> bool {
        matches!(
            self.reason(),
            Some(
                Reason::TicketExpired
                    | Reason::TicketRedeemed
                    | Reason::TicketOutdated
                    | Reason::TicketAudienceWrong
                    | Reason::TicketMalformed
                    | Reason::TicketNotAuthentic
            )
        )
    }
}

/// Redeems the ticket of a message for the affiliate application of the port, with the originator as
/// the sender: validate and redeem. The caller has to administer the application, and to be a trusted
/// host, as its word is taken for who the message is from.
///
/// `allowed` are the applications that this host redeems tickets for, from its own settings and not
/// from the config store: a port says where credentials go, and whoever may write ports must not send
/// those of any other application there that the host happens to administer. Case does not matter.
///
/// # Errors
/// See [`RedeemError`].
pub async fn redeem(
    client: &Client,
    port: &SendPort,
    allowed: &[String],
    context: &MessageContext,
) -> Result<Redeemed, RedeemError> {
    let sign_on = context.sign_on().ok_or(RedeemError::NoSignOn)?;
    let application = port
        .application
        .as_deref()
        .ok_or_else(|| RedeemError::NoApplication { port: port.name.clone() })?;
    let same = |name: &String| name.to_lowercase() == application.to_lowercase();
    if !allowed.iter().any(same) {
        let (port, application) = (port.name.clone(), application.to_owned());
        return Err(RedeemError::NotAllowed { port, application });
    }
    let sender = Some(sign_on.originator());
    client.tickets().redeem(application, sign_on.ticket(), sender, false).await.map_err(|source| {
        RedeemError::Refused {
            originator: sign_on.originator().to_owned(),
            application: application.to_owned(),
            source,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reason: Reason) -> RedeemError {
        let refusal = sso_proto::Refusal {
            request_id: "id".into(),
            ..sso_proto::Refusal::new(reason, "words")
        };
        let source = ClientError::from_status(&refusal.into_status(), "https://a:1", true);
        let (originator, application) = (r"CORP\ann".to_owned(), "Gateway".to_owned());
        RedeemError::Refused { originator, application, source }
    }

    #[test]
    fn refusals_are_sorted_by_what_cures_them() {
        for (reason, again, spent) in [
            (Reason::TicketExpired, Again::Never, true),
            (Reason::TicketRedeemed, Again::Never, true),
            (Reason::TicketNotAuthentic, Again::Never, true),
            (Reason::TicketOutdated, Again::Never, true),
            (Reason::TicketAudienceWrong, Again::Never, true),
            (Reason::TicketNotYetValid, Again::Later, false),
            (Reason::TicketSenderMismatch, Again::AfterRepair, false),
            (Reason::TicketUserNotInApplication, Again::AfterRepair, false),
            (Reason::MappingNotFound, Again::AfterRepair, false),
            (Reason::MappingDisabled, Again::AfterRepair, false),
            (Reason::NotApplicationAdministrator, Again::AfterRepair, false),
            (Reason::SystemDisabled, Again::AfterRepair, false),
            (Reason::MasterUnreachable, Again::Later, false),
            (Reason::DatabaseUnavailable, Again::Later, false),
            (Reason::Overloaded, Again::Later, false),
            (Reason::Internal, Again::Later, false),
        ] {
            let error = refused(reason);
            assert_eq!((error.again(), error.ticket_is_spent()), (again, spent), "{reason:?}");
            assert_eq!(error.reason(), Some(reason));
            assert!(error.to_string().contains("CORP\\ann"), "{error}");
        }
    }
}
