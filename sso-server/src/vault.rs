//! Seals and opens what the nouns keep secret, each value bound to its own place.

use std::sync::Arc;

use sso_core::{
    key_ring::{Generation, KeyRing},
    seal::{OpenError, Place, sealed_under},
    secret::{SecretBytes, SecretText},
};
use sso_proto::Reason;

use crate::{
    error::Error,
    master::MasterSecret,
    model::{
        Account, ApplicationId, Bag, ConfigurationId, ExternalUser, Identifier,
        MAX_TICKET_CHARACTERS, MappingId, Revision, Ticket, ticket_bytes, ticket_text,
    },
    storage::SealedOwner,
};

/// The column of every bag.
const COLUMN: &str = "sealed";
/// Tickets stand in no row: whoever holds one keeps it.
const TICKETS: Place<'static> =
    Place { table: "tickets", column: "ticket", row: &[], application: &[] };

/// A bag as it is stored.
#[derive(Clone, Debug)]
pub struct SealedBag {
    /// Names the generation it was sealed under.
    pub generation: u32,
    /// The sealed bytes.
    pub bytes: Vec<u8>,
}

/// Where a bag belongs.
#[derive(Clone, Debug)]
pub struct BagPlace {
    table: &'static str,
    row: Vec<u8>,
    application: ApplicationId,
    whose: BagOf,
}

/// Whose it is, for a person.
#[derive(Clone, Copy, Debug)]
enum BagOf {
    Configuration(ConfigurationId, Revision),
    Mapping(MappingId),
}

impl BagOf {
    /// What to do when it does not open.
    fn remedy(self) -> &'static str {
        match self {
            Self::Configuration(..) => {
                "restore this row from a backup of the database or roll back"
            }
            Self::Mapping(_) => {
                "set the credentials again, or restore this row from a backup of the database"
            }
        }
    }
}

impl std::fmt::Display for BagOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Configuration(configuration, revision) => {
                write!(f, "configuration {configuration} revision {revision}")
            }
            Self::Mapping(mapping) => write!(f, "the credentials of mapping {mapping}"),
        }
    }
}

impl BagPlace {
    /// The place of one revision of a configuration.
    #[must_use]
    pub fn configuration(
        application: ApplicationId,
        configuration: ConfigurationId,
        identifier: &Identifier,
        revision: Revision,
    ) -> Self {
        Self {
            table: "configuration_revisions",
            row: configuration.row(revision, identifier),
            application,
            whose: BagOf::Configuration(configuration, revision),
        }
    }

    /// The place of the credentials of a mapping; without an account in a host group application.
    #[must_use]
    pub fn credentials(
        application: ApplicationId,
        mapping: MappingId,
        account: Option<&Account>,
        external_user: &ExternalUser,
    ) -> Self {
        Self {
            table: "mappings",
            row: mapping.row(account, external_user),
            application,
            whose: BagOf::Mapping(mapping),
        }
    }

    /// The place of a row that was read to be sealed again.
    #[must_use]
    pub fn of_row(owner: &SealedOwner) -> Self {
        match owner {
            SealedOwner::Revision { application, configuration, identifier, revision } => {
                Self::configuration(*application, *configuration, identifier, *revision)
            }
            SealedOwner::Mapping { application, kind, mapping, account, external_user } => {
                let account = kind.seals_account().then_some(account);
                Self::credentials(*application, *mapping, account, external_user)
            }
        }
    }
}

/// Seals and opens with the keys that the master secret server handed out.
#[derive(Clone, Debug)]
pub struct Vault {
    master: Arc<MasterSecret>,
}

impl Vault {
    /// A vault over these keys.
    #[must_use]
    pub fn new(master: Arc<MasterSecret>) -> Self {
        Self { master }
    }

    /// Refuses at once where nothing new may be sealed, so that a write changes nothing.
    ///
    /// # Errors
    /// `MASTER_UNREACHABLE` and its kin.
    pub fn require_sealing(&self) -> Result<(), Error> {
        self.master.keys_for_write()?;
        Ok(())
    }

    /// Refuses at once where nothing can be opened.
    ///
    /// # Errors
    /// `MASTER_SECRET_EXPIRED` and its kin.
    pub fn require_opening(&self) -> Result<(), Error> {
        self.master.keys_for_read()?;
        Ok(())
    }

    /// Seals a bag to its place under the active generation.
    ///
    /// # Errors
    /// `MASTER_UNREACHABLE` and its kin while the write lease is over.
    pub fn seal(&self, place: &BagPlace, bag: &Bag) -> Result<SealedBag, Error> {
        let keys = self.master.keys_for_write()?;
        let bytes = keys
            .seal(&place.of(), bag.encode().expose())
            .map_err(|error| Error::new(Reason::Internal, format!("sealing failed: {error}")))?;
        Ok(SealedBag { generation: keys.active().number(), bytes })
    }

    /// Opens the bag of one place.
    ///
    /// # Errors
    /// `SEALED_VALUE_DAMAGED` for bytes that were changed, truncated or moved here;
    /// `GENERATION_MISSING` naming the generation; `MASTER_SECRET_EXPIRED` and its kin.
    pub fn open(&self, place: &BagPlace, sealed: &[u8]) -> Result<Bag, Error> {
        let keys = self.master.keys_for_read()?;
        let opened = keys.open(&place.of(), sealed).map_err(|error| place.damaged(&error))?;
        Bag::decode(&opened).ok_or_else(|| {
            let message = format!("{place} opens to no bag of values");
            Error::new(Reason::SealedValueDamaged, message)
        })
    }
}

impl Vault {
    /// The keys of this moment, to seal rows again with.
    ///
    /// # Errors
    /// `MASTER_UNREACHABLE` and its kin while the write lease is over.
    pub fn resealing(&self) -> Result<Resealing, Error> {
        Ok(Resealing::new(self.master.keys_for_write()?))
    }

    /// Whether values sealed under this generation open; also while there are no keys at all, which is
    /// for whoever opens to say.
    #[must_use]
    pub fn may_open(&self, generation: u32) -> bool {
        let Ok(keys) = self.master.keys_for_read() else { return true };
        Generation::new(generation).is_some_and(|generation| keys.contains(generation))
    }

    /// Seals a ticket under the active generation. Nothing is stored, so that this goes on while the
    /// master is away, as reading does.
    ///
    /// # Errors
    /// `MASTER_SECRET_EXPIRED` and its kin; `INVALID_REQUEST` for more groups than a ticket holds.
    pub fn seal_ticket(&self, ticket: &Ticket) -> Result<SecretText, Error> {
        let keys = self.master.keys_for_read()?;
        let too_long = || {
            let message = format!(
                "the groups in the token of {} make the ticket longer than {MAX_TICKET_CHARACTERS} characters; name the application that it is for, and only the groups that matter there are kept",
                ticket.account
            );
            Error::new(Reason::InvalidRequest, message)
        };
        let payload = ticket.encode().ok_or_else(too_long)?;
        // Expose: the payload is what is sealed.
        let sealed = keys
            .seal(&TICKETS, payload.expose())
            .map_err(|error| Error::new(Reason::Internal, format!("sealing failed: {error}")))?;
        ticket_text(&sealed).ok_or_else(too_long)
    }

    /// What a ticket says, and the generation it was sealed under.
    ///
    /// # Errors
    /// `TICKET_MALFORMED` for a text that is none; `TICKET_NOT_AUTHENTIC` for one that was changed, or
    /// whose generation, which is named, is not held; `MASTER_SECRET_EXPIRED` and its kin.
    pub fn open_ticket(&self, text: &str) -> Result<(Ticket, u32), Error> {
        let malformed = |why: &str| {
            Error::new(Reason::TicketMalformed, format!("the text is not a ticket: {why}"))
        };
        let sealed = ticket_bytes(text)?;
        let (generation, _) =
            sealed_under(&sealed).map_err(|error| malformed(&error.to_string()))?;
        let keys = self.master.keys_for_read()?;
        let payload = keys.open(&TICKETS, &sealed).map_err(|error| match &error {
            OpenError::Malformed(why) => malformed(why),
            OpenError::UnknownGeneration { .. } => not_authentic(&format!(
                "it was {error}; it belongs to another system, or the generation was retired"
            )),
            OpenError::NotAuthentic { .. } => not_authentic(&format!("{error}; ask for a new one")),
        })?;
        let ticket = Ticket::decode(&payload).ok_or_else(|| {
            malformed("what it says is of a form that this version does not know")
        })?;
        Ok((ticket, generation.number()))
    }

    /// Takes as long as opening a bag like this one at this place, and opens nothing: for whoever must
    /// not be told by the time that there is nothing to open.
    ///
    /// # Errors
    /// `MASTER_SECRET_EXPIRED` and its kin.
    pub fn open_nothing(&self, place: &BagPlace, like: &Bag) -> Result<(), Error> {
        let keys = self.master.keys_for_read()?;
        // Expose: only its length counts.
        let decoy = keys.decoy(like.encode().expose().len());
        // It opens nowhere.
        let _ = keys.open(&place.of(), &decoy);
        Ok(())
    }
}

/// The keys of one moment, to open rows with and to seal them again.
#[derive(Clone, Debug)]
pub struct Resealing {
    keys: Arc<KeyRing>,
}

impl Resealing {
    /// With these keys.
    #[must_use]
    pub fn new(keys: Arc<KeyRing>) -> Self {
        Self { keys }
    }

    /// The generation that rows are sealed under again.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.keys.active().number()
    }

    /// Whether a row opens to a bag of values; what is in it is wiped at once.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn check(&self, owner: &SealedOwner, sealed: &[u8]) -> Result<(), String> {
        self.opened(&BagPlace::of_row(owner), sealed).map(drop)
    }

    /// A row sealed under the active generation, with a salt of its own.
    ///
    /// # Errors
    /// Why it does not open, in words.
    pub fn reseal(&self, owner: &SealedOwner, sealed: &[u8]) -> Result<Vec<u8>, String> {
        let place = BagPlace::of_row(owner);
        let opened = self.opened(&place, sealed)?;
        // Expose: to be sealed again; the copy wipes itself.
        self.keys.seal(&place.of(), opened.expose()).map_err(|error| error.to_string())
    }

    fn opened(&self, place: &BagPlace, sealed: &[u8]) -> Result<SecretBytes, String> {
        let opened = self.keys.open(&place.of(), sealed).map_err(|error| error.to_string())?;
        if Bag::decode(&opened).is_none() {
            return Err("it opens to no bag of values".to_owned());
        }
        Ok(opened)
    }
}

fn not_authentic(why: &str) -> Error {
    Error::new(Reason::TicketNotAuthentic, format!("the ticket does not open: {why}"))
}

impl std::fmt::Display for BagPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.whose.fmt(f)
    }
}

impl BagPlace {
    fn of(&self) -> Place<'_> {
        Place {
            table: self.table,
            column: COLUMN,
            row: &self.row,
            application: self.application.as_bytes(),
        }
    }

    fn damaged(&self, error: &OpenError) -> Error {
        let reason = match error {
            OpenError::UnknownGeneration { .. } => Reason::GenerationMissing,
            OpenError::Malformed(_) | OpenError::NotAuthentic { .. } => Reason::SealedValueDamaged,
        };
        tracing::error!(%error, place = %self.whose, "a stored value does not open");
        Error::new(
            reason,
            format!("{} does not open: {error}; {}", self.whose, self.whose.remedy()),
        )
    }
}

#[cfg(test)]
mod tests {
    use sso_core::{
        clock::Clock,
        key_ring::{Generation, KeyRing},
        memory::LockedKey,
    };
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    /// Generations `from` to `active`, whose keys are their numbers plus `salt`.
    fn vault(from: u32, active: u32, salt: u8) -> Vault {
        let key = |number: u32| LockedKey::from_bytes(&[number as u8 + salt; 32]).unwrap();
        let generation = |number| Generation::new(number).unwrap();
        let keys = (from..=active).map(|number| (generation(number), key(number)));
        let keys = KeyRing::new(keys, generation(active)).unwrap();
        Vault::new(MasterSecret::holding(keys, Clock::manual(OffsetDateTime::UNIX_EPOCH)))
    }

    fn ticket() -> Ticket {
        Ticket {
            id: Uuid::from_u128(7),
            account: Account::parse("DEV\\Ann").unwrap(),
            subject: None,
            by_logon: None,
            token_groups: None,
            server: "sso-server-1".into(),
            issued_at: OffsetDateTime::UNIX_EPOCH,
            expires_at: OffsetDateTime::UNIX_EPOCH,
            audience: Some(ApplicationId::generate()),
            validation_required: true,
        }
    }

    fn refusal(vault: &Vault, text: &str) -> Error {
        vault.open_ticket(text).unwrap_err()
    }

    #[test]
    fn a_ticket_opens_under_every_generation_held_and_names_one_that_is_not() {
        let text = vault(1, 1, 0).seal_ticket(&ticket()).unwrap();
        assert_eq!(vault(1, 2, 0).open_ticket(text.expose()).unwrap().1, 1);
        let retired = refusal(&vault(2, 3, 0), text.expose());
        assert_eq!(retired.reason, Reason::TicketNotAuthentic);
        let fingerprint = vault(1, 1, 0).master.keys_for_read().unwrap().active_fingerprint();
        let named = format!("sealed under generation 1 (fingerprint {fingerprint})");
        assert!(retired.message.contains(&named), "{retired}");
        // The same number in another system.
        let foreign = refusal(&vault(1, 1, 9), text.expose());
        assert_eq!(foreign.reason, Reason::TicketNotAuthentic);
        assert!(foreign.message.contains(&named), "{foreign}");
    }

    #[test]
    fn a_ticket_with_any_bit_flipped_or_cut_anywhere_is_refused() {
        let vault = vault(1, 1, 0);
        let text = vault.seal_ticket(&ticket()).unwrap();
        let text = text.expose();
        let reasons = [Reason::TicketMalformed, Reason::TicketNotAuthentic];
        for at in 0..text.len() {
            let cut = refusal(&vault, &text[..at]);
            assert!(reasons.contains(&cut.reason), "cut at {at}: {cut:?}");
            for bit in 0..8 {
                let mut flipped = text.as_bytes().to_vec();
                flipped[at] ^= 1 << bit;
                // Above ASCII there is no character of one byte.
                let flipped: String = flipped.into_iter().map(char::from).collect();
                let refused = refusal(&vault, &flipped);
                assert!(reasons.contains(&refused.reason), "bit {bit} of {at}: {refused:?}");
            }
        }
        let sealed = ticket_bytes(text).unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1 << bit;
                let refused = refusal(&vault, ticket_text(&flipped).unwrap().expose());
                assert!(reasons.contains(&refused.reason), "bit {bit} of byte {at}: {refused:?}");
            }
        }
        assert_eq!(vault.open_ticket(text).unwrap().0.id, ticket().id);
    }

    #[test]
    fn what_is_sealed_elsewhere_is_no_ticket() {
        let vault = vault(1, 1, 0);
        let keys = vault.master.keys_for_read().unwrap();
        let payload = ticket().encode().unwrap();
        for place in [
            Place { table: "mappings", ..TICKETS },
            Place { column: "sealed", ..TICKETS },
            Place { row: b"x", ..TICKETS },
            Place { application: b"x", ..TICKETS },
        ] {
            let sealed = keys.seal(&place, payload.expose()).unwrap();
            let refused = refusal(&vault, ticket_text(&sealed).unwrap().expose());
            assert_eq!(refused.reason, Reason::TicketNotAuthentic);
        }
        let sealed = keys.seal(&TICKETS, b"no payload").unwrap();
        let refused = refusal(&vault, ticket_text(&sealed).unwrap().expose());
        assert_eq!(refused.reason, Reason::TicketMalformed);
    }

    #[test]
    fn groups_that_fit_no_ticket_are_refused_with_the_remedy() {
        let groups = |count: u32| (0..count).map(|it| format!("dev\\group number {it}")).collect();
        let vault = vault(1, 1, 0);
        let fits = Ticket { token_groups: Some(groups(100)), ..ticket() };
        assert!(vault.seal_ticket(&fits).is_ok());
        for count in [200, 70_000] {
            let refused = vault
                .seal_ticket(&Ticket { token_groups: Some(groups(count)), ..ticket() })
                .unwrap_err();
            assert_eq!(refused.reason, Reason::InvalidRequest);
            assert!(refused.message.contains("name the application"), "{refused}");
        }
    }
}
