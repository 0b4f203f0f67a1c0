//! When and where a ticket is good: time, audience, and what is newer than the ticket (ESSO.md 5.1).

use sso_proto::Reason;
use time::{Duration, OffsetDateTime};

use crate::{
    error::Error,
    lookup::called,
    model::{Application, ApplicationFlag, ServingMapping, Ticket},
};

/// How far the clocks of two servers may be apart.
pub(super) const SKEW: Duration = Duration::seconds(5);
/// No ticket lasts longer, whatever an application says.
const LONGEST: Duration = Duration::days(365);

/// The time of a ticket in an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    /// When it ends.
    end: OffsetDateTime,
    /// When it is refused at the latest: later than its end where the application does not mind.
    last: OffsetDateTime,
    /// How long a redeemed one-time ticket is remembered: past any end that it can have from now on.
    pub(super) remembered_until: OffsetDateTime,
}

impl Validity {
    /// The end by the timeout of the application or, where it has none, by that of the system when the
    /// ticket was issued.
    ///
    /// A redeemed one-time ticket is remembered until the end that held when it was redeemed, or that of
    /// the system if later. So that no later change of the application brings it back to life, only a
    /// timeout that was in force when it was issued makes it last longer than the system said.
    pub(super) fn of(ticket: &Ticket, application: &Application) -> Self {
        let latest = ticket.issued_at.saturating_add(LONGEST);
        let own = match application.ticket_timeout {
            0 => ticket.expires_at,
            minutes => ticket.issued_at.saturating_add(Duration::minutes(minutes.into())),
        };
        let changed = application.updated_at.saturating_add(SKEW) >= ticket.issued_at;
        if application.has(ApplicationFlag::OneTimeTickets) && changed {
            let end = own.min(ticket.expires_at).min(latest);
            return Self { end, last: end, remembered_until: ticket.expires_at };
        }
        let ends = application.has(ApplicationFlag::TimeoutTickets);
        let end = own.min(latest);
        let last = if ends { end } else { latest };
        Self { end, last, remembered_until: last.max(ticket.expires_at) }
    }

    /// Refuses a ticket from the future or the past; whether it has ended and is accepted all the same.
    ///
    /// # Errors
    /// `TICKET_NOT_YET_VALID`, `TICKET_EXPIRED`.
    pub(super) fn require(self, ticket: &Ticket, now: OffsetDateTime) -> Result<bool, Error> {
        if ticket.issued_at > now.saturating_add(SKEW) {
            let message = format!(
                "the ticket was issued by {} at {}, which is {} s in the future of this server; set their clocks right",
                ticket.server,
                seconds(ticket.issued_at),
                (ticket.issued_at - now).whole_seconds()
            );
            return Err(Error::new(Reason::TicketNotYetValid, message));
        }
        if now > self.last.saturating_add(SKEW) {
            let message = format!(
                "the ticket was issued at {} and ended at {}; it is {} now",
                seconds(ticket.issued_at),
                seconds(self.last),
                seconds(now)
            );
            return Err(Error::new(Reason::TicketExpired, message));
        }
        Ok(now > self.end.saturating_add(SKEW))
    }
}

/// Whether a ticket has ended by the system's timeout when it was issued.
pub(super) fn has_ended(ticket: &Ticket, now: OffsetDateTime) -> bool {
    now > ticket.expires_at.saturating_add(SKEW)
}

/// Refuses a ticket for another application, and one for none where the application wants its own.
///
/// # Errors
/// `TICKET_AUDIENCE_WRONG`.
pub(super) fn require_audience(ticket: &Ticket, application: &Application) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::new(Reason::TicketAudienceWrong, why));
    match ticket.audience {
        Some(audience) if audience != application.id => refuse(format!(
            "the ticket was issued for another application than \"{}\"",
            application.name
        )),
        None if application.has(ApplicationFlag::RequireTicketAudience) => refuse(format!(
            "application \"{name}\" takes only tickets that were issued for it; name it when the ticket is issued",
            name = application.name
        )),
        Some(_) | None => Ok(()),
    }
}

/// Refuses a ticket that is older than the application: it was issued when another one had the name,
/// or none.
///
/// # Errors
/// `TICKET_OUTDATED`.
pub(super) fn require_newer_than_application(
    ticket: &Ticket,
    application: &Application,
) -> Result<(), Error> {
    outdated(ticket, application.created_at, || format!("application \"{}\"", application.name))
}

/// Refuses a ticket that is older than the mapping.
///
/// # Errors
/// `TICKET_OUTDATED`.
pub(super) fn require_newer_than_mapping(
    ticket: &Ticket,
    mapping: &ServingMapping,
    application: &Application,
) -> Result<(), Error> {
    outdated(ticket, mapping.created_at, || {
        format!("{} in application \"{}\"", called(application, mapping), application.name)
    })
}

fn outdated(
    ticket: &Ticket,
    created_at: OffsetDateTime,
    what: impl Fn() -> String,
) -> Result<(), Error> {
    if created_at <= ticket.issued_at {
        return Ok(());
    }
    let message = format!(
        "the ticket was issued at {}, before {} was created; ask for a new one",
        seconds(ticket.issued_at),
        what()
    );
    Err(Error::new(Reason::TicketOutdated, message))
}

/// The time in UTC to the second, for a person.
fn seconds(time: OffsetDateTime) -> String {
    let time = time.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).unwrap_or(time);
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use sso_core::clock::Clock;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::model::{
        Account, Accounts, ApplicationFlags, ApplicationId, ApplicationName, ApplicationType,
        FieldUpdate, Fields,
    };

    const ISSUED: OffsetDateTime = datetime!(2030-05-01 12:00 UTC);

    /// Issued at noon for two minutes.
    fn ticket() -> Ticket {
        Ticket {
            id: Uuid::from_u128(1),
            account: Account::parse("D\\ann").unwrap(),
            subject: None,
            by_logon: None,
            token_groups: None,
            server: "sso-server-1".into(),
            issued_at: ISSUED,
            expires_at: ISSUED + Duration::minutes(2),
            audience: None,
            validation_required: false,
        }
    }

    /// Created and last changed a day before.
    fn application(ticket_timeout: u32, flags: &[ApplicationFlag]) -> Application {
        let kind = ApplicationType::Individual;
        let field = FieldUpdate { label: "user".into(), ..FieldUpdate::default() };
        let earlier = ISSUED - Duration::days(1);
        Application {
            id: ApplicationId(Uuid::from_u128(2)),
            name: ApplicationName::parse("App").unwrap(),
            kind,
            description: String::new(),
            contact: String::new(),
            users: Accounts::parse(&["D\\ann"]).unwrap(),
            windows_account: None,
            administrators: Accounts::default(),
            administrators_same: true,
            allow_local_accounts: false,
            enabled: true,
            flags: ApplicationFlags::from_stored(flags.iter().copied()),
            ticket_timeout,
            fields: Fields::parse(kind, vec![field]).unwrap().0,
            created_at: earlier,
            updated_at: earlier,
        }
    }

    /// What becomes of the ticket so many seconds after it was issued.
    fn after(application: &Application, ticket: &Ticket, seconds: u64) -> Result<bool, Reason> {
        let clock = Clock::manual(ISSUED);
        clock.advance(std::time::Duration::from_secs(seconds));
        let validity = Validity::of(ticket, application);
        validity.require(ticket, clock.now()).map_err(|error| error.reason)
    }

    const EXPIRED: Result<bool, Reason> = Err(Reason::TicketExpired);
    const YEAR: u64 = 365 * 86_400;
    use ApplicationFlag::{OneTimeTickets, RequireTicketAudience, TimeoutTickets};

    #[test]
    fn a_ticket_ends_with_the_timeout_and_five_seconds() {
        let by_system = application(0, &[TimeoutTickets]);
        for (seconds, expected) in [(0, Ok(false)), (125, Ok(false)), (126, EXPIRED)] {
            assert_eq!(after(&by_system, &ticket(), seconds), expected, "{seconds}");
        }
        let shorter = application(1, &[TimeoutTickets]);
        assert_eq!(after(&shorter, &ticket(), 65), Ok(false));
        assert_eq!(after(&shorter, &ticket(), 66), EXPIRED);
        let longer = application(10, &[TimeoutTickets]);
        assert_eq!(after(&longer, &ticket(), 605), Ok(false));
        assert_eq!(after(&longer, &ticket(), 606), EXPIRED);
    }

    #[test]
    fn without_a_timeout_an_old_ticket_is_accepted_and_said_to_be_old_for_a_year() {
        for timeout in [0, 1] {
            let never = application(timeout, &[]);
            assert_eq!(after(&never, &ticket(), 60), Ok(false));
            assert_eq!(after(&never, &ticket(), 126), Ok(true));
            assert_eq!(after(&never, &ticket(), YEAR + 5), Ok(true));
            assert_eq!(after(&never, &ticket(), YEAR + 6), EXPIRED);
        }
        // A forged end does not help either, nor does the longest timeout there is.
        let mut long = ticket();
        long.expires_at = ISSUED + Duration::days(4000);
        for application in [application(0, &[TimeoutTickets]), application(525_600, &[])] {
            assert_eq!(after(&application, &long, YEAR + 6), EXPIRED);
        }
    }

    #[test]
    fn a_ticket_from_the_future_is_refused_beyond_five_seconds() {
        let application = application(0, &[TimeoutTickets]);
        let require = |ahead: Duration| {
            Validity::of(&ticket(), &application).require(&ticket(), ISSUED - ahead)
        };
        assert_eq!(require(Duration::seconds(5)), Ok(false));
        let refused = require(Duration::milliseconds(5_001)).unwrap_err();
        assert_eq!(refused.reason, Reason::TicketNotYetValid);
        assert!(refused.message.contains("sso-server-1"), "{refused}");
    }

    #[test]
    fn no_later_change_brings_a_one_time_ticket_back() {
        let once = application(10, &[TimeoutTickets, OneTimeTickets]);
        assert_eq!(after(&once, &ticket(), 605), Ok(false));
        let remembered = Validity::of(&ticket(), &once).remembered_until;
        assert_eq!(remembered, ISSUED + Duration::minutes(10));
        // Also where the application let it end earlier than the system would have.
        let shorter = application(1, &[TimeoutTickets, OneTimeTickets]);
        assert_eq!(Validity::of(&ticket(), &shorter).remembered_until, ticket().expires_at);
        let (ends, never): (&[_], &[_]) = (&[TimeoutTickets, OneTimeTickets], &[OneTimeTickets]);
        for (timeout, flags) in [(1000, ends), (1000, never), (0, never)] {
            let mut changed = application(timeout, flags);
            changed.updated_at = ISSUED + Duration::minutes(1);
            let validity = Validity::of(&ticket(), &changed);
            assert!(validity.last <= ticket().expires_at, "{timeout} {flags:?}");
            assert!(validity.last <= validity.remembered_until, "{timeout} {flags:?}");
            assert_eq!(after(&changed, &ticket(), 126), EXPIRED);
        }
    }

    #[test]
    fn the_audience_is_the_application_or_none_where_none_is_required() {
        let (any, own) = (application(0, &[]), application(0, &[RequireTicketAudience]));
        let with = |audience| Ticket { audience, ..ticket() };
        assert!(require_audience(&with(None), &any).is_ok());
        for application in [&any, &own] {
            assert!(require_audience(&with(Some(application.id)), application).is_ok());
            let other = with(Some(ApplicationId::generate()));
            let refused = require_audience(&other, application).unwrap_err();
            assert_eq!(refused.reason, Reason::TicketAudienceWrong);
        }
        let refused = require_audience(&with(None), &own).unwrap_err();
        assert_eq!(refused.reason, Reason::TicketAudienceWrong);
    }

    #[test]
    fn a_ticket_older_than_its_application_is_dead() {
        let mut application = application(0, &[]);
        application.created_at = ISSUED;
        assert!(require_newer_than_application(&ticket(), &application).is_ok());
        application.created_at = ISSUED + Duration::microseconds(1);
        let refused = require_newer_than_application(&ticket(), &application).unwrap_err();
        assert_eq!(refused.reason, Reason::TicketOutdated);
        assert!(refused.message.contains("2030-05-01T12:00:00Z"), "{refused}");
    }

    #[test]
    fn the_end_shown_is_that_of_the_system() {
        assert!(!has_ended(&ticket(), ISSUED + Duration::seconds(125)));
        assert!(has_ended(&ticket(), ISSUED + Duration::seconds(126)));
    }
}
