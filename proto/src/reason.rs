//! The stable reasons of refusals and warnings: one table of name, gRPC code and event number.

use std::time::Duration;

use tonic::Code;

macro_rules! reasons {
    ($($variant:ident = $name:literal, $code:ident, $event:expr, $summary:literal;)*) => {
        /// Why a request was refused, or what a warning is about. The names never change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason { $(#[doc = $summary] $variant,)* }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name, as in `google.rpc.ErrorInfo.reason`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The gRPC status code that goes with it.
            #[must_use]
            pub fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)* }
            }

            /// The event number of the reference product (ESSO.md 13), where one exists.
            #[must_use]
            pub fn event(self) -> Option<u32> {
                match self { $(Self::$variant => $event,)* }
            }

            /// What it stands for, in one line.
            #[must_use]
            pub fn summary(self) -> &'static str {
                match self { $(Self::$variant => $summary,)* }
            }

            /// The reason of this name; `None` for one this version does not know.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    // who asks
    NotAuthenticated = "NOT_AUTHENTICATED", Unauthenticated, Some(10584), "The caller is nobody this server knows: no certificate, token or local user that a rule turns into an account.";
    CertificateRefused = "CERTIFICATE_REFUSED", Unauthenticated, None, "The client certificate is no longer valid.";
    TokenRefused = "TOKEN_REFUSED", Unauthenticated, Some(10584), "The bearer token is not acceptable: signature, issuer, audience, time or a claim.";
    IdentityAmbiguous = "IDENTITY_AMBIGUOUS", Unauthenticated, Some(10584), "The request carries two identities; one is enough.";
    UserTokenRefused = "USER_TOKEN_REFUSED", Unauthenticated, Some(10584), "The token of the end user that a host forwarded is not acceptable.";
    PrincipalReplaced = "PRINCIPAL_REPLACED", Unauthenticated, Some(10584), "The account name belonged to somebody else before; an SSO administrator must have that one forgotten.";
    CredentialsMismatch = "CREDENTIALS_MISMATCH", Unauthenticated, Some(10810), "The credentials given are not those stored for the external user.";
    ServerNotListed = "SERVER_NOT_LISTED", PermissionDenied, Some(10527), "The master's settings name no SSO server with this certificate.";
    NotSsoAdministrator = "NOT_SSO_ADMINISTRATOR", PermissionDenied, Some(11009), "The caller is not an SSO administrator.";
    NotAffiliateAdministrator = "NOT_AFFILIATE_ADMINISTRATOR", PermissionDenied, Some(11010), "The caller is not an affiliate administrator.";
    NotApplicationAdministrator = "NOT_APPLICATION_ADMINISTRATOR", PermissionDenied, Some(11011), "The caller is not an administrator of the application.";
    NotApplicationUser = "NOT_APPLICATION_USER", PermissionDenied, Some(11013), "The caller is not a user of the application.";
    AdministratorAccountsProtected = "ADMINISTRATOR_ACCOUNTS_PROTECTED", PermissionDenied, Some(10569), "Only an affiliate administrator may change who administers an application.";
    TicketFlagsProtected = "TICKET_FLAGS_PROTECTED", PermissionDenied, Some(11009), "Only an SSO administrator sets the ticket flags of an application.";
    TicketTimeoutProtected = "TICKET_TIMEOUT_PROTECTED", PermissionDenied, Some(10615), "Only an SSO administrator sets whether and when the tickets of an application end.";
    PasswordWaiverProtected = "PASSWORD_WAIVER_PROTECTED", PermissionDenied, Some(11010), "Only an affiliate administrator switches the comparison of host credentials off.";
    HostAccessProtected = "HOST_ACCESS_PROTECTED", PermissionDenied, Some(11010), "Only an affiliate administrator says that external users log on to an application, and as whom.";
    GroupMappingProtected = "GROUP_MAPPING_PROTECTED", PermissionDenied, Some(10557), "Users may not control the mappings of group and host group applications.";
    MappingOfAnother = "MAPPING_OF_ANOTHER", PermissionDenied, Some(10558), "Users control only the mapping of their own account.";
    MappingCreateRestricted = "MAPPING_CREATE_RESTRICTED", PermissionDenied, Some(10856), "Users may not create mappings in this application.";
    AccountNotInApplication = "ACCOUNT_NOT_IN_APPLICATION", PermissionDenied, Some(10853), "The account is not among the users of the application.";
    RemoteLookupNotAllowed = "REMOTE_LOOKUP_NOT_ALLOWED", PermissionDenied, Some(11068), "This server serves look-ups to callers on its own machine only.";
    NotTrustedHost = "NOT_TRUSTED_HOST", PermissionDenied, None, "Only a trusted host forwards the token of an end user.";
    TicketOfAnother = "TICKET_OF_ANOTHER", PermissionDenied, None, "A ticket is inspected by the one it was issued to or by an affiliate administrator.";
    NotMasterAdministrator = "NOT_MASTER_ADMINISTRATOR", PermissionDenied, Some(10771), "The settings of the master secret server do not name the caller as an administrator.";
    MasterAdministrationLocal = "MASTER_ADMINISTRATION_LOCAL", PermissionDenied, Some(10766), "This master secret server is administered on its own machine only.";
    ServerRevoked = "SERVER_REVOKED", PermissionDenied, Some(10527), "The right of the server to the master secret was revoked.";
    BackupPasswordWrong = "BACKUP_PASSWORD_WRONG", PermissionDenied, Some(10779), "The backup does not open with this password, key or shares.";
    MethodNotListed = "METHOD_NOT_LISTED", PermissionDenied, None, "The method stands in no row of the access table.";

    // what is asked for
    ApplicationNotFound = "APPLICATION_NOT_FOUND", NotFound, Some(10756), "There is no application of this name.";
    ConfigurationNotFound = "CONFIGURATION_NOT_FOUND", NotFound, Some(10757), "Nothing has been set under this identifier.";
    RevisionNotFound = "REVISION_NOT_FOUND", NotFound, None, "The history does not hold this revision.";
    MappingNotFound = "MAPPING_NOT_FOUND", NotFound, Some(10757), "The application has no such mapping.";
    ServerNotFound = "SERVER_NOT_FOUND", NotFound, None, "There is no server of this name in the system.";
    GenerationNotFound = "GENERATION_NOT_FOUND", NotFound, Some(10815), "The keystore has no such generation.";
    SealedRowsCheckNotFound = "SEALED_ROWS_CHECK_NOT_FOUND", NotFound, None, "No check of the sealed rows was begun under this id, or it is too long ago.";
    ApplicationExists = "APPLICATION_EXISTS", AlreadyExists, Some(10752), "An application of this name exists.";
    FieldExists = "FIELD_EXISTS", AlreadyExists, Some(10758), "The application has a field of this label.";
    MappingExists = "MAPPING_EXISTS", AlreadyExists, Some(11045), "The account has a mapping in this application.";
    ExternalUserMapped = "EXTERNAL_USER_MAPPED", AlreadyExists, Some(11046), "The external user is mapped in this application already.";
    GroupMappingExists = "GROUP_MAPPING_EXISTS", AlreadyExists, Some(11026), "The group has a mapping in this application.";

    // bad input
    InvalidName = "INVALID_NAME", InvalidArgument, None, "A name, label or identifier is empty, too long or has characters it must not have.";
    InvalidAccount = "INVALID_ACCOUNT", InvalidArgument, Some(10776), "An account is not of the form DOMAIN\\name.";
    BuiltInAccount = "BUILT_IN_ACCOUNT", InvalidArgument, Some(10777), "Built-in accounts and Everyone are refused.";
    LocalAccountNotAllowed = "LOCAL_ACCOUNT_NOT_ALLOWED", InvalidArgument, Some(10781), "Local accounts need the flag allow_local_accounts.";
    DomainAccountRequired = "DOMAIN_ACCOUNT_REQUIRED", InvalidArgument, Some(10841), "Mappings are for accounts with a domain, unless the application allows local ones.";
    IndividualAccountRequired = "INDIVIDUAL_ACCOUNT_REQUIRED", InvalidArgument, Some(10847), "Only the account of a single user can be mapped here.";
    WindowsAccountInvalid = "WINDOWS_ACCOUNT_INVALID", InvalidArgument, Some(10846), "A host group application has exactly one account, of a single user.";
    GroupAccountNotListed = "GROUP_ACCOUNT_NOT_LISTED", InvalidArgument, Some(10556), "A mapping of a group application names one of its user accounts.";
    ExternalUserInvalid = "EXTERNAL_USER_INVALID", InvalidArgument, None, "An external user is empty, too long or has characters it must not have.";
    CredentialsIncomplete = "CREDENTIALS_INCOMPLETE", InvalidArgument, None, "Credentials need one value for each field from field 1 on.";
    TicketMalformed = "TICKET_MALFORMED", InvalidArgument, Some(10593), "The text is not a ticket.";
    TicketNotAuthentic = "TICKET_NOT_AUTHENTIC", InvalidArgument, Some(10592), "The ticket cannot be decrypted: it was changed, or belongs to another system.";
    TicketTimeoutOutOfRange = "TICKET_TIMEOUT_OUT_OF_RANGE", InvalidArgument, Some(11025), "The ticket timeout of an application is 0 to 525600 minutes.";
    InvalidFlags = "INVALID_FLAGS", InvalidArgument, Some(10782), "The flags do not go together.";
    InvalidFields = "INVALID_FIELDS", InvalidArgument, None, "Fields are missing, not contiguous, too many or have the same label.";
    UnknownField = "UNKNOWN_FIELD", InvalidArgument, None, "The application has no field of this label.";
    ValueTooLarge = "VALUE_TOO_LARGE", InvalidArgument, None, "A value is larger than 65536 bytes.";
    ValuesIncomplete = "VALUES_INCOMPLETE", InvalidArgument, None, "The first write of an identifier must supply every field.";
    ValuesEmpty = "VALUES_EMPTY", InvalidArgument, None, "A write must supply at least one value.";
    KeepMissing = "KEEP_MISSING", InvalidArgument, Some(10760), "A value was to be kept, but none is stored.";
    KeepEmpty = "KEEP_EMPTY", InvalidArgument, Some(10761), "A value was to be kept, but the stored one is empty.";
    Immutable = "IMMUTABLE", InvalidArgument, Some(10566), "This part cannot change after creation.";
    OutOfRange = "OUT_OF_RANGE", InvalidArgument, Some(10614), "A number is outside its range.";
    BackupMalformed = "BACKUP_MALFORMED", InvalidArgument, Some(10564), "The document is no backup of the master secret, or a damaged one.";
    BackupLocksInvalid = "BACKUP_LOCKS_INVALID", InvalidArgument, None, "A backup needs a password, officers or shares, and what was given makes none.";
    BackupPasswordLength = "BACKUP_PASSWORD_LENGTH", InvalidArgument, Some(10836), "A backup password has 7 to 256 characters.";
    BackupReminderInvalid = "BACKUP_REMINDER_INVALID", InvalidArgument, Some(10840), "A reminder has at most 512 characters on one line, and does not give the password away.";
    BackupSharesInvalid = "BACKUP_SHARES_INVALID", InvalidArgument, None, "The shares are too few, damaged, or of different backups.";
    InvalidPageToken = "INVALID_PAGE_TOKEN", InvalidArgument, None, "The page token was not issued by this method.";
    InvalidRequest = "INVALID_REQUEST", InvalidArgument, None, "The request lacks a part or has one that makes no sense.";

    // state
    ApplicationDisabled = "APPLICATION_DISABLED", FailedPrecondition, Some(10755), "The application is disabled.";
    ApplicationTypeWrong = "APPLICATION_TYPE_WRONG", FailedPrecondition, None, "The application is of a type that does not have this.";
    ApplicationTypeUnsupported = "APPLICATION_TYPE_UNSUPPORTED", Unimplemented, None, "This version does not keep applications of this type.";
    AdministratorsSame = "ADMINISTRATORS_SAME", FailedPrecondition, Some(10775), "The application administrators are defined as the affiliate administrators.";
    FieldsAmbiguous = "FIELDS_AMBIGUOUS", FailedPrecondition, Some(10848), "It is not clear which field holds the password that is synchronised.";
    DirectSyncAtCreate = "DIRECT_SYNC_AT_CREATE", FailedPrecondition, Some(10849), "Direct password synchronisation is switched on after creation.";
    FieldAfterDirectSync = "FIELD_AFTER_DIRECT_SYNC", FailedPrecondition, Some(10852), "No field is added while direct password synchronisation is on.";
    WindowsInitiatedOff = "WINDOWS_INITIATED_OFF", FailedPrecondition, None, "The application does not give credentials to callers.";
    MappingDisabled = "MAPPING_DISABLED", FailedPrecondition, Some(10764), "The mapping is disabled.";
    MappingDisabledByAdministrator = "MAPPING_DISABLED_BY_ADMINISTRATOR", FailedPrecondition, Some(10770), "An administrator disabled the mapping; its user cannot enable it.";
    CredentialsNotSet = "CREDENTIALS_NOT_SET", FailedPrecondition, Some(10765), "The mapping has no credentials.";
    TicketsNotAllowed = "TICKETS_NOT_ALLOWED", FailedPrecondition, Some(10545), "The system does not issue tickets.";
    TicketsNotAllowedBySystem = "TICKETS_NOT_ALLOWED_BY_SYSTEM", FailedPrecondition, Some(10539), "The system does not allow tickets to be redeemed.";
    TicketsNotAllowedByApplication = "TICKETS_NOT_ALLOWED_BY_APPLICATION", FailedPrecondition, Some(10540), "The application does not allow tickets.";
    TicketValidationRequiredBySystem = "TICKET_VALIDATION_REQUIRED_BY_SYSTEM", FailedPrecondition, Some(10541), "The system requires tickets to be validated against a sender.";
    TicketValidationRequiredByApplication = "TICKET_VALIDATION_REQUIRED_BY_APPLICATION", FailedPrecondition, Some(10542), "The application requires tickets to be validated against a sender.";
    TicketValidationRequiredByTicket = "TICKET_VALIDATION_REQUIRED_BY_TICKET", FailedPrecondition, Some(10543), "The ticket was issued to be validated against a sender.";
    TicketExpired = "TICKET_EXPIRED", FailedPrecondition, Some(10790), "The ticket has expired.";
    TicketNotYetValid = "TICKET_NOT_YET_VALID", FailedPrecondition, None, "The ticket was issued in the future: clocks differ.";
    TicketOutdated = "TICKET_OUTDATED", FailedPrecondition, None, "The application or the mapping is newer than the ticket.";
    TicketSenderMismatch = "TICKET_SENDER_MISMATCH", FailedPrecondition, Some(10594), "The sender is not the one the ticket was issued to.";
    TicketUserNotInApplication = "TICKET_USER_NOT_IN_APPLICATION", FailedPrecondition, Some(10596), "The one the ticket was issued to is not among the users of the application.";
    TicketAudienceWrong = "TICKET_AUDIENCE_WRONG", FailedPrecondition, None, "The ticket was issued for another application, or for none where one is required.";
    TicketOfOwnLogon = "TICKET_OF_OWN_LOGON", FailedPrecondition, None, "A ticket of a logon is redeemed by another host than the one that logged the user on.";
    TicketRedeemed = "TICKET_REDEEMED", FailedPrecondition, None, "The ticket was redeemed here before, and may be only once.";
    HostInitiatedOff = "HOST_INITIATED_OFF", FailedPrecondition, Some(10808), "The system does not allow external users to log on.";
    HostInitiatedOffInApplication = "HOST_INITIATED_OFF_IN_APPLICATION", FailedPrecondition, Some(10809), "The application does not allow external users to log on.";
    AssertionAudienceUnknown = "ASSERTION_AUDIENCE_UNKNOWN", FailedPrecondition, None, "The settings of the server list no such audience for assertions.";
    IndividualForIndividual = "INDIVIDUAL_FOR_INDIVIDUAL", FailedPrecondition, None, "An individual SSO administrator is replaced only by a group that it is in.";
    SystemDisabled = "SYSTEM_DISABLED", FailedPrecondition, Some(10754), "The SSO system is disabled.";
    SystemNotDisabled = "SYSTEM_NOT_DISABLED", FailedPrecondition, Some(10773), "The SSO system must be disabled first.";
    CallerNotInAccounts = "CALLER_NOT_IN_ACCOUNTS", FailedPrecondition, Some(10834), "The caller must be in the new SSO administrator accounts.";
    NotPrimary = "NOT_PRIMARY", FailedPrecondition, Some(10766), "This master secret server is on standby; the primary does this.";
    GenerationStateWrong = "GENERATION_STATE_WRONG", FailedPrecondition, Some(10814), "The generation is not in the state that this needs.";
    GenerationInUse = "GENERATION_IN_USE", FailedPrecondition, Some(10814), "Values are sealed under the generation, or may be.";
    GenerationFingerprintWrong = "GENERATION_FINGERPRINT_WRONG", FailedPrecondition, Some(10815), "The fingerprint is not that of the generation.";
    BackupMissing = "BACKUP_MISSING", FailedPrecondition, Some(10589), "No backup that was opened again has the generation.";
    BackupForeign = "BACKUP_FOREIGN", FailedPrecondition, Some(10815), "The backup belongs to another keystore, has another key for a generation, or nothing proves that this system made it.";
    BackupHasNothingNew = "BACKUP_HAS_NOTHING_NEW", FailedPrecondition, None, "The keystore has every generation of the backup already.";
    ServersUnreachable = "SERVERS_UNREACHABLE", FailedPrecondition, None, "No SSO server is there that could take a new generation.";
    PromotionRefused = "PROMOTION_REFUSED", FailedPrecondition, None, "The master lacks what the database uses, or nobody can say what that is.";
    TlsNotReloaded = "TLS_NOT_RELOADED", FailedPrecondition, None, "A certificate, key, authority or revocation list is not usable; what was loaded before stays in use.";
    RevisionStale = "REVISION_STALE", Aborted, Some(10816), "The configuration has changed since the revision named.";

    // the service itself
    MasterUnreachable = "MASTER_UNREACHABLE", Unavailable, Some(10783), "The master secret server is not reachable, so nothing new may be sealed.";
    MasterSecretExpired = "MASTER_SECRET_EXPIRED", Unavailable, Some(10783), "The read lease ended while the master secret server was not reachable.";
    MasterSecretMissing = "MASTER_SECRET_MISSING", Unavailable, Some(10783), "This server has not obtained the master secret since it started.";
    MasterSecretForeign = "MASTER_SECRET_FOREIGN", Unavailable, Some(10815), "The master secret server holds the keys of another system.";
    MasterSecretRevoked = "MASTER_SECRET_REVOKED", Unavailable, Some(10527), "The right of this server to the master secret was revoked, and it has forgotten its keys.";
    MasterOutdated = "MASTER_OUTDATED", Unavailable, Some(10815), "The master secret server is of an earlier epoch, or lacks generations that the database uses.";
    GenerationClosed = "GENERATION_CLOSED", Unavailable, Some(10814), "The generation that this server seals under was closed meanwhile; try again.";
    KeystoreNotWritten = "KEYSTORE_NOT_WRITTEN", Unavailable, Some(10526), "The keystore cannot be written; it is what it was.";
    DatabaseUnavailable = "DATABASE_UNAVAILABLE", Unavailable, Some(10785), "The database cannot be reached or cannot be written.";
    AuditUnavailable = "AUDIT_UNAVAILABLE", Unavailable, None, "The audit record cannot be written, so the request is refused.";
    ChangeNotSeen = "CHANGE_NOT_SEEN", Unavailable, None, "The database of this server does not have the change that the request asks for.";
    ServerStopping = "SERVER_STOPPING", Unavailable, None, "This server is stopping; another one, or this one in a moment, goes on.";
    Overloaded = "OVERLOADED", ResourceExhausted, None, "Too many requests at once.";
    QuotaExceeded = "QUOTA_EXCEEDED", ResourceExhausted, None, "The account asks more often than the quota of this server allows.";
    SealedValueDamaged = "SEALED_VALUE_DAMAGED", DataLoss, Some(10778), "A stored value does not open: it was changed, truncated or moved.";
    StoredRowDamaged = "STORED_ROW_DAMAGED", DataLoss, None, "A row of the database holds what this service cannot have written.";
    GenerationMissing = "GENERATION_MISSING", DataLoss, Some(10815), "A stored value was sealed under a generation this server does not hold.";
    Internal = "INTERNAL", Internal, None, "A fault in the service itself.";

    // warnings
    IndividualUser = "INDIVIDUAL_USER", Ok, Some(11054), "An individual account is a user of the application; groups are easier to keep right.";
    IndividualAdministrator = "INDIVIDUAL_ADMINISTRATOR", Ok, Some(11053), "An individual account administers the application; groups are easier to keep right.";
    MaskIgnored = "MASK_IGNORED", Ok, Some(11044), "Field 0 is never masked; the mask was ignored.";
    FlagIgnored = "FLAG_IGNORED", Ok, Some(10566), "A flag cannot change after creation; it was ignored.";
    FlagReset = "FLAG_RESET", Ok, Some(11044), "A flag means nothing for applications of this type; it was reset.";
    ApplicationUnusable = "APPLICATION_UNUSABLE", Ok, None, "With both directions off the application serves nobody.";
    PasswordNotValidated = "PASSWORD_NOT_VALIDATED", Ok, None, "External users are believed without their credentials.";
    TicketsNeverExpire = "TICKETS_NEVER_EXPIRE", Ok, Some(10585), "Tickets of this application do not expire.";
    MembershipUnknown = "MEMBERSHIP_UNKNOWN", Ok, None, "Whether the account is among the users is known only when it asks.";
}

impl Reason {
    /// After what time the same request is worth another try, where the server can say.
    #[must_use]
    pub fn retry_after(self) -> Option<Duration> {
        (self == Self::Overloaded).then_some(Duration::from_millis(100))
    }

    /// Whether a refusal for this reason is audited: somebody lacks a role or did not prove who they
    /// are, or comes with a ticket that is somebody else's, used, forged or for something else.
    #[must_use]
    pub fn is_denial(self) -> bool {
        matches!(self.code(), Code::PermissionDenied | Code::Unauthenticated)
            || matches!(
                self,
                Self::TicketSenderMismatch
                    | Self::TicketRedeemed
                    | Self::TicketAudienceWrong
                    | Self::TicketUserNotInApplication
                    | Self::TicketOutdated
                    | Self::TicketNotAuthentic
            )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_parse_back() {
        let names: HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for &reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::parse("NO_SUCH_REASON"), None);
    }

    #[test]
    fn denials_are_missing_roles_unproved_callers_and_tickets_that_look_stolen() {
        assert!(Reason::NotApplicationUser.is_denial());
        assert!(Reason::CredentialsMismatch.is_denial());
        assert!(Reason::TicketRedeemed.is_denial());
        for harmless in [Reason::TicketExpired, Reason::TicketMalformed, Reason::MappingNotFound] {
            assert!(!harmless.is_denial(), "{harmless:?}");
        }
    }
}
