//! The events that the programs log: one table of number, name, severity, condition and remedy.
//!
//! The numbers are those of the reference product (ESSO.md 13), so that whoever knows them finds the
//! same thing; what that one has no event for is numbered from 11101 on. Log lines carry them as the field `event`. Refusals have theirs in [`Reason`](crate::Reason).

/// Numbers of events that the reference product does not have.
#[cfg(test)]
const OWN: std::ops::RangeInclusive<u32> = 11_101..=11_199;

/// How bad an event is, which is also the level of its log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Worth knowing.
    Information,
    /// One caller or one part is affected, or will be.
    Warning,
    /// A whole program is affected.
    Error,
}

impl Severity {
    /// As pages and log levels write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Information => "information",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

macro_rules! events {
    ($($variant:ident = $number:literal, $name:literal, $severity:ident, $condition:literal, $remedy:literal;)*) => {
        /// Something that a program logs under a number of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Event { $(#[doc = $condition] $variant,)* }

        impl Event {
            /// Every event, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The number in the field `event` of a log line.
            #[must_use]
            pub const fn number(self) -> u32 {
                match self { $(Self::$variant => $number,)* }
            }

            /// The stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// How bad it is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }

            /// When it is logged.
            #[must_use]
            pub const fn condition(self) -> &'static str {
                match self { $(Self::$variant => $condition,)* }
            }

            /// What to do about it; empty where nothing has to be done.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

events! {
    DatabaseWithTls = 10501, "DATABASE_WITH_TLS", Information, "The connection to the database is encrypted.", "";
    Started = 10502, "SERVICE_STARTED", Information, "A program listens and serves.", "";
    StartFailed = 10503, "SERVICE_START_FAILED", Error, "A program ended before it served, or because a listener failed.", "Read the error in the same line and the lines before it.";
    Stopping = 10504, "SERVICE_STOPPING", Information, "A program was told to stop and lets open requests end.", "";
    Stopped = 10505, "SERVICE_STOPPED", Information, "A program has stopped.", "";
    DatabaseNotReached = 10513, "DATABASE_NOT_REACHED", Error, "The database did not answer within `database.connect_deadline_seconds` of the start.", "Check database, name, network and rights; the service manager starts the server again.";
    DatabaseError = 10514, "DATABASE_ERROR", Error, "The database refused to give the settings of the system.", "Look at the error, and at the log of the database.";
    DatabaseLost = 10515, "DATABASE_LOST", Error, "The contact to the database was lost while polling it for changes.", "Check database and network; the server goes on by itself when it answers.";
    AffiliateAdministratorsInvalid = 10516, "AFFILIATE_ADMINISTRATORS_INVALID", Error, "A group that the system names as its affiliate administrators does not exist any more.", "Correct the accounts while the system is disabled, or bring the group back.";
    SsoAdministratorsInvalid = 10517, "SSO_ADMINISTRATORS_INVALID", Error, "A group that the system names as its SSO administrators does not exist any more.", "Correct the accounts while the system is disabled, or bring the group back.";
    UserAccountsInvalid = 10518, "USER_ACCOUNTS_INVALID", Warning, "A group that an application names as its users does not exist any more.", "Correct the user accounts, or bring the group back; then enable the application.";
    AdministratorAccountsInvalid = 10519, "ADMINISTRATOR_ACCOUNTS_INVALID", Warning, "A group that an application names as its administrators does not exist any more.", "Correct the administrator accounts, or bring the group back; then enable the application.";
    NoMasterSecret = 10520, "NO_MASTER_SECRET", Error, "The master secret server has no keystore that can be read.", "`sso-master init` makes the first one; check the path in the settings.";
    MasterSecretLocked = 10521, "MASTER_SECRET_LOCKED", Error, "The keystore cannot be unlocked.", "Check passphrase or keyring of the protector.";
    ResealFailed = 10522, "RESEAL_FAILED", Warning, "Sealing again under the active generation was interrupted; it is tried again, by this server or another.", "Look at the error; database and master must answer.";
    MasterSecretRestored = 10523, "MASTER_SECRET_RESTORED", Information, "Generations of a backup were put into the keystore.", "";
    MasterSecretNotRestored = 10524, "MASTER_SECRET_NOT_RESTORED", Error, "A backup was not restored; the keystore is what it was.", "Look at the error: file, password, keystore.";
    MasterSecretGenerated = 10525, "MASTER_SECRET_GENERATED", Information, "A master secret was generated and its keystore made.", "";
    MasterSecretNotGenerated = 10526, "MASTER_SECRET_NOT_GENERATED", Error, "No master secret was generated; nothing is left of the attempt.", "Look at the error: files that exist, rights, protector.";
    MasterSecretRefused = 10527, "MASTER_SECRET_REFUSED", Warning, "A request for the master secret was refused, or a watching server is no longer trusted.", "If it is a server of yours, add a `[[server]]` to the settings of the master or renew its certificate.";
    ResealDone = 10528, "RESEAL_DONE", Information, "Every value is sealed under the active generation; the line counts them.", "";
    MasterSecretObtained = 10529, "MASTER_SECRET_OBTAINED", Information, "A server obtained the active generation of the master secret.", "";
    OlderGenerationsObtained = 10530, "OLDER_GENERATIONS_OBTAINED", Information, "A server obtained older generations along with the active one.", "";
    MasterSecretGranted = 10531, "MASTER_SECRET_GRANTED", Information, "The master handed the master secret to a server.", "";
    MasterLost = 10532, "MASTER_LOST", Warning, "The master secret server cannot be reached or relied on: nothing new is sealed.", "Start the master or repair the way to it before the read lease ends.";
    MasterBack = 10533, "MASTER_BACK", Information, "The master secret server answers again.", "";
    MasterUnlocked = 10534, "MASTER_UNLOCKED", Information, "The keystore is unlocked: this is the master secret server.", "";
    RequestDone = 10535, "REQUEST_DONE", Information, "A request was done, and the positive audit level of the server asks for a line about it.", "";
    RequestRefused = 10536, "REQUEST_REFUSED", Warning, "A request was refused, and the negative audit level of the server asks for a line about it.", "The reason stands in the line.";
    SystemIsDisabled = 10537, "SYSTEM_IS_DISABLED", Warning, "A server started in a system that is disabled.", "`sso system enable`";
    RowNotResealed = 10547, "ROW_NOT_RESEALED", Warning, "A row does not open, so it was not sealed again; the line names it.", "Set its values again, delete it, or restore the row from a backup of the database.";
    DatabaseCreated = 10548, "DATABASE_CREATED", Information, "A new SSO system was made in an empty database.", "";
    DatabaseNotCreated = 10549, "DATABASE_NOT_CREATED", Error, "The system could not be made in, or read from, the database.", "Check the rights of the role in the database.";
    BackupWritten = 10559, "BACKUP_WRITTEN", Information, "A backup of the master secret was written and opened again.", "Move it off the host, and keep its password elsewhere.";
    BackupNotWritten = 10560, "BACKUP_NOT_WRITTEN", Error, "The backup of the master secret could not be written or did not open again; no keystore was made.", "Check path, rights and space.";
    ResealRunning = 10562, "RESEAL_RUNNING", Information, "Values are being sealed again under the active generation.", "";
    MetricsUnavailable = 10563, "METRICS_UNAVAILABLE", Warning, "The listener of health and metrics failed.", "Check `operations_listen`.";
    MasterChanged = 10575, "MASTER_CHANGED", Information, "The system has a master secret server of another address.", "";
    AffiliateAdministratorsChanged = 10576, "AFFILIATE_ADMINISTRATORS_CHANGED", Information, "The affiliate administrators were changed.", "";
    SsoAdministratorsChanged = 10577, "SSO_ADMINISTRATORS_CHANGED", Information, "The SSO administrators were changed.", "";
    ApplicationUsersChanged = 10578, "APPLICATION_USERS_CHANGED", Information, "The user accounts of an application were changed.", "";
    ApplicationAdministratorsChanged = 10579, "APPLICATION_ADMINISTRATORS_CHANGED", Information, "The administrator accounts of an application were changed.", "";
    ApplicationEnabled = 10580, "APPLICATION_ENABLED", Information, "An application was enabled.", "";
    ApplicationDisabled = 10581, "APPLICATION_DISABLED", Information, "An application was disabled.", "";
    SystemEnabled = 10582, "SYSTEM_ENABLED", Information, "The system was enabled.", "";
    SystemDisabled = 10583, "SYSTEM_DISABLED", Information, "The system was disabled.", "";
    DatabaseSilent = 10588, "DATABASE_SILENT", Warning, "The database does not answer yet; the server goes on trying.", "Check address, name and that the database runs.";
    BackupNeeded = 10589, "BACKUP_NEEDED", Error, "A generation of the master secret is in no backup that was opened again, or the last one is old; repeated every hour.", "`sso secret backup FILE`, and keep the file away from the host.";
    Offline = 10590, "OFFLINE", Error, "A server is not ready any more: no keys, or no database.", "The reasons stand in the line and at `/readyz`; the server recovers by itself.";
    Online = 10591, "ONLINE", Information, "A server is ready, at first or again.", "";
    RunsAsRoot = 10599, "RUNS_AS_ROOT", Warning, "A program runs as root.", "Give it a user of its own, as the unit files do.";
    ReportFailed = 10603, "REPORT_FAILED", Warning, "A server cannot write its row in the database; it may go offline.", "Check the database.";
    SystemTicketsOn = 10606, "SYSTEM_TICKETS_ON", Information, "The system allows tickets from now on.", "";
    SystemTicketsOff = 10607, "SYSTEM_TICKETS_OFF", Information, "The system allows no tickets from now on.", "";
    ApplicationTicketsOn = 10608, "APPLICATION_TICKETS_ON", Information, "An application allows tickets from now on.", "";
    ApplicationTicketsOff = 10609, "APPLICATION_TICKETS_OFF", Information, "An application allows no tickets from now on.", "";
    DatabaseWithoutTls = 10611, "DATABASE_WITHOUT_TLS", Information, "The connection to the database need not be encrypted: a file, a socket, the own machine, or an `sslmode` that says so.", "Over a network use `sslmode=verify-full`.";
    SchemaIncompatible = 10728, "SCHEMA_INCOMPATIBLE", Error, "The schema of the database is not the one this program needs.", "Run the newest program; `database.migrate` lets one server bring the schema up to date.";
    GroupsUnusable = 11008, "GROUPS_UNUSABLE", Error, "The file of groups cannot be used; the groups read before stay in force.", "Correct the file; it is read again within seconds.";
    GroupMappingChosen = 11028, "GROUP_MAPPING_CHOSEN", Information, "In a group application, the account of the list that decided for the caller; logged at the level debug.", "";
    AccountsAccepted = 11042, "ACCOUNTS_ACCEPTED", Warning, "A request was denied; the line names the accounts that would have been accepted.", "Make the caller a member of one of the groups named, or correct the accounts.";
    IndividualSsoAdministrator = 11051, "INDIVIDUAL_SSO_ADMINISTRATOR", Warning, "An individual account is an SSO administrator.", "Name a group; remove individuals when they leave.";
    IndividualAffiliateAdministrator = 11052, "INDIVIDUAL_AFFILIATE_ADMINISTRATOR", Warning, "An individual account is an affiliate administrator.", "Name a group; remove individuals when they leave.";
    IndividualApplicationAdministrator = 11053, "INDIVIDUAL_APPLICATION_ADMINISTRATOR", Warning, "An individual account administers an application.", "Name a group; remove individuals when they leave.";
    IndividualApplicationUser = 11054, "INDIVIDUAL_APPLICATION_USER", Warning, "An individual account is a user of an application.", "Name a group; remove individuals when they leave.";
    ProtectorAdded = 11101, "PROTECTOR_ADDED", Information, "A keystore has one more protector that unlocks it.", "";
    ProtectorRemoved = 11102, "PROTECTOR_REMOVED", Information, "A protector unlocks a keystore no more; another one opened it before.", "Remove its `[[protector]]` from the settings.";
    TlsReloaded = 11103, "TLS_RELOADED", Information, "Certificate, key, authorities or revocation lists were loaded again and are in use; connections whose peers they refuse end.", "";
    TlsNotReloaded = 11104, "TLS_NOT_RELOADED", Error, "Certificate, key, authorities or revocation lists changed, and what they hold cannot be used; what was loaded before stays in use.", "Correct the file that the line names; it is read again within seconds.";
    CertificateEndsSoon = 11105, "CERTIFICATE_ENDS_SOON", Warning, "A certificate that the program shows or trusts ends within 30, 7 or 1 days; said once at each of them.", "Put a new one in its place; the program takes it over by itself.";
    CertificateEnded = 11106, "CERTIFICATE_ENDED", Error, "A certificate that the program shows or trusts has expired: peers refuse it, or what comes from it is refused.", "Put a new one in its place; the program takes it over by itself.";
    RevocationListUnavailable = 11107, "REVOCATION_LIST_UNAVAILABLE", Warning, "A revocation list of the settings cannot be read or fetched, or is none of a known authority; under hard-fail, peers of its authority are refused once no other list serves.", "Check file or URL; it is tried again by itself.";
    RevocationListExpired = 11108, "REVOCATION_LIST_EXPIRED", Error, "A revocation list has ended and no newer one is at hand: under hard-fail, peers of its authority are refused.", "Have the authority issue a new list (`sso cert crl`), and put it where the settings look.";
    RevocationNotChecked = 11109, "REVOCATION_NOT_CHECKED", Warning, "A peer was let through although nobody can say whether its certificate is revoked, because the policy is soft-fail.", "Bring the revocation list back; with `revocation = \"hard-fail\"` such peers are refused.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_numbers_ascend() {
        let names: HashSet<_> = Event::ALL.iter().map(|event| event.as_str()).collect();
        assert_eq!(names.len(), Event::ALL.len());
        let numbers: Vec<_> = Event::ALL.iter().map(|event| event.number()).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        assert!(
            numbers.iter().all(|number| (10500..=11071).contains(number) || OWN.contains(number))
        );
    }
}
