//! The stable reasons of refusals and warnings: one table of name, gRPC code and event number.

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
    NotAuthenticated = "NOT_AUTHENTICATED", Unauthenticated, Some(10584), "No rule turns the client certificate into an account.";
    CertificateRefused = "CERTIFICATE_REFUSED", Unauthenticated, None, "The client certificate is no longer valid.";
    ServerNotListed = "SERVER_NOT_LISTED", PermissionDenied, Some(10527), "The master's settings name no SSO server with this certificate.";
    NotSsoAdministrator = "NOT_SSO_ADMINISTRATOR", PermissionDenied, Some(11009), "The caller is not an SSO administrator.";
    NotAffiliateAdministrator = "NOT_AFFILIATE_ADMINISTRATOR", PermissionDenied, Some(11010), "The caller is not an affiliate administrator.";
    NotApplicationAdministrator = "NOT_APPLICATION_ADMINISTRATOR", PermissionDenied, Some(11011), "The caller is not an administrator of the application.";
    NotApplicationUser = "NOT_APPLICATION_USER", PermissionDenied, Some(11013), "The caller is not a user of the application.";
    AdministratorAccountsProtected = "ADMINISTRATOR_ACCOUNTS_PROTECTED", PermissionDenied, Some(10569), "Only an affiliate administrator may change who administers an application.";
    MethodNotListed = "METHOD_NOT_LISTED", PermissionDenied, None, "The method stands in no row of the access table.";

    // what is asked for
    ApplicationNotFound = "APPLICATION_NOT_FOUND", NotFound, Some(10756), "There is no application of this name.";
    ConfigurationNotFound = "CONFIGURATION_NOT_FOUND", NotFound, Some(10757), "Nothing has been set under this identifier.";
    RevisionNotFound = "REVISION_NOT_FOUND", NotFound, None, "The history does not hold this revision.";
    ApplicationExists = "APPLICATION_EXISTS", AlreadyExists, Some(10752), "An application of this name exists.";
    FieldExists = "FIELD_EXISTS", AlreadyExists, Some(10758), "The application has a field of this label.";

    // bad input
    InvalidName = "INVALID_NAME", InvalidArgument, None, "A name, label or identifier is empty, too long or has characters it must not have.";
    InvalidAccount = "INVALID_ACCOUNT", InvalidArgument, Some(10776), "An account is not of the form DOMAIN\\name.";
    BuiltInAccount = "BUILT_IN_ACCOUNT", InvalidArgument, Some(10777), "Built-in accounts and Everyone are refused.";
    LocalAccountNotAllowed = "LOCAL_ACCOUNT_NOT_ALLOWED", InvalidArgument, Some(10781), "Local accounts need the flag allow_local_accounts.";
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
    InvalidPageToken = "INVALID_PAGE_TOKEN", InvalidArgument, None, "The page token was not issued by this method.";
    InvalidRequest = "INVALID_REQUEST", InvalidArgument, None, "The request lacks a part or has one that makes no sense.";

    // state
    ApplicationDisabled = "APPLICATION_DISABLED", FailedPrecondition, Some(10755), "The application is disabled.";
    ApplicationTypeWrong = "APPLICATION_TYPE_WRONG", FailedPrecondition, None, "The application is of a type that does not have this.";
    ApplicationTypeUnsupported = "APPLICATION_TYPE_UNSUPPORTED", Unimplemented, None, "This version does not keep applications of this type.";
    AdministratorsSame = "ADMINISTRATORS_SAME", FailedPrecondition, Some(10775), "The application administrators are defined as the affiliate administrators.";
    SystemDisabled = "SYSTEM_DISABLED", FailedPrecondition, Some(10754), "The SSO system is disabled.";
    SystemNotDisabled = "SYSTEM_NOT_DISABLED", FailedPrecondition, Some(10773), "The SSO system must be disabled first.";
    CallerNotInAccounts = "CALLER_NOT_IN_ACCOUNTS", FailedPrecondition, Some(10834), "The caller must be in the new SSO administrator accounts.";
    RevisionStale = "REVISION_STALE", Aborted, Some(10816), "The configuration has changed since the revision named.";

    // the service itself
    MasterUnreachable = "MASTER_UNREACHABLE", Unavailable, Some(10783), "The master secret server is not reachable, so nothing new may be sealed.";
    MasterSecretExpired = "MASTER_SECRET_EXPIRED", Unavailable, Some(10783), "The read lease ended while the master secret server was not reachable.";
    MasterSecretMissing = "MASTER_SECRET_MISSING", Unavailable, Some(10783), "This server has not obtained the master secret since it started.";
    MasterSecretForeign = "MASTER_SECRET_FOREIGN", Unavailable, Some(10815), "The master secret server holds the keys of another system.";
    DatabaseUnavailable = "DATABASE_UNAVAILABLE", Unavailable, Some(10785), "The database cannot be reached or cannot be written.";
    AuditUnavailable = "AUDIT_UNAVAILABLE", Unavailable, None, "The audit record cannot be written, so the request is refused.";
    ServerStopping = "SERVER_STOPPING", Unavailable, None, "This server is stopping; another one, or this one in a moment, goes on.";
    Overloaded = "OVERLOADED", ResourceExhausted, None, "Too many requests at once.";
    SealedValueDamaged = "SEALED_VALUE_DAMAGED", DataLoss, Some(10778), "A stored value does not open: it was changed, truncated or moved.";
    StoredRowDamaged = "STORED_ROW_DAMAGED", DataLoss, None, "A row of the database holds what this service cannot have written.";
    GenerationMissing = "GENERATION_MISSING", DataLoss, Some(10815), "A stored value was sealed under a generation this server does not hold.";
    Internal = "INTERNAL", Internal, None, "A fault in the service itself.";

    // warnings
    IndividualAccount = "INDIVIDUAL_ACCOUNT", Ok, Some(11051), "A role was given to an individual account; groups are easier to keep right.";
    MaskIgnored = "MASK_IGNORED", Ok, Some(11044), "Field 0 is never masked; the mask was ignored.";
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
}
