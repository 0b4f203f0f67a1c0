//! The flags of an application: which types have them, their defaults, and what may change
//! (ESSO.md 3.3, 3.4).

use std::collections::BTreeSet;

use sso_proto::Reason;

use super::ApplicationType;
use crate::error::Error;

use ApplicationType::{Group, HostGroup, Individual};

macro_rules! flags {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, [$($kind:ident)*], [$($on:ident)*];)*) => {
        /// What an application may be told to do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ApplicationFlag { $($(#[$doc])* $variant,)* }

        impl ApplicationFlag {
            /// Every flag.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name stored, and of the field of the message.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The types that have it.
            fn kinds(self) -> &'static [ApplicationType] {
                match self { $(Self::$variant => &[$($kind,)*],)* }
            }

            /// The types that begin with it on.
            fn on_for(self) -> &'static [ApplicationType] {
                match self { $(Self::$variant => &[$($on,)*],)* }
            }
        }
    };
}

flags! {
    /// Callers get the credentials mapped to their own account.
    WindowsInitiated = "windows_initiated", [Individual Group], [Individual Group];
    /// External users log on as the account they are mapped to.
    HostInitiated = "host_initiated", [Individual HostGroup], [HostGroup];
    /// A host-initiated logon must give the stored credentials.
    ValidatePassword = "validate_password", [Individual HostGroup], [Individual HostGroup];
    /// Tickets may be redeemed.
    AllowTickets = "allow_tickets", [Individual Group], [];
    /// The sender must be the one a ticket was issued to.
    ValidateTickets = "validate_tickets", [Individual Group], [Individual Group];
    /// Tickets end.
    TimeoutTickets = "timeout_tickets", [Individual Group], [Individual Group];
    /// A ticket is redeemed once.
    OneTimeTickets = "one_time_tickets", [Individual Group], [];
    /// Only tickets issued for this application are redeemed.
    RequireTicketAudience = "require_ticket_audience", [Individual Group], [];
    /// Look-ups always read the database.
    DisableCredentialCache = "disable_credential_cache", [Individual Group HostGroup], [];
    /// Users do not create mappings themselves.
    RestrictMappingCreate = "restrict_mapping_create", [Individual], [];
    /// The stored credentials are themselves directory credentials.
    WindowsCredentials = "windows_credentials", [Individual], [];
    /// Kept for clients that know it.
    RestrictedCredentials = "restricted_credentials", [Group], [];
    /// Directory passwords are stored as the external credentials.
    DirectPasswordSync = "direct_password_sync", [Individual], [];
}

impl ApplicationFlag {
    /// The flag of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|flag| flag.as_str() == name)
    }

    /// Whether applications of this type have it.
    #[must_use]
    pub fn is_of(self, kind: ApplicationType) -> bool {
        self.kinds().contains(&kind)
    }

    /// Whether applications of this type begin with it on.
    #[must_use]
    pub fn default_for(self, kind: ApplicationType) -> bool {
        self.on_for().contains(&kind)
    }

    /// Whether it can change after creation.
    #[must_use]
    pub fn is_mutable(self, kind: ApplicationType) -> bool {
        match self {
            Self::WindowsCredentials | Self::RestrictedCredentials => false,
            Self::HostInitiated => self.is_of(kind) && kind != HostGroup,
            Self::WindowsInitiated
            | Self::ValidatePassword
            | Self::AllowTickets
            | Self::ValidateTickets
            | Self::TimeoutTickets
            | Self::OneTimeTickets
            | Self::RequireTicketAudience
            | Self::DisableCredentialCache
            | Self::RestrictMappingCreate
            | Self::DirectPasswordSync => self.is_of(kind),
        }
    }

    /// Whether asking for it where the type does not have it is a contradiction, rather than a default
    /// of the other types that means nothing here (ESSO.md 3.3, last paragraph).
    fn contradicts(self) -> bool {
        matches!(
            self,
            Self::HostInitiated
                | Self::AllowTickets
                | Self::OneTimeTickets
                | Self::RequireTicketAudience
                | Self::RestrictMappingCreate
                | Self::WindowsCredentials
                | Self::RestrictedCredentials
                | Self::DirectPasswordSync
        )
    }

    /// Only an SSO administrator changes it (ESSO.md 2.3, rows 16 and 17).
    #[must_use]
    pub fn is_of_tickets(self) -> bool {
        matches!(
            self,
            Self::AllowTickets
                | Self::ValidateTickets
                | Self::TimeoutTickets
                | Self::OneTimeTickets
                | Self::RequireTicketAudience
        )
    }
}

/// The flags that are on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplicationFlags(BTreeSet<ApplicationFlag>);

impl ApplicationFlags {
    /// The flags of a new application of this type where nothing is said.
    #[must_use]
    pub fn default_of(kind: ApplicationType) -> Self {
        let on = ApplicationFlag::ALL.iter().copied().filter(|flag| flag.default_for(kind));
        Self(on.collect())
    }

    /// The flags of a new application, and those given that mean nothing for its type.
    ///
    /// # Errors
    /// `INVALID_FLAGS` for a combination that cannot be, naming what the type has; `DIRECT_SYNC_AT_CREATE`.
    pub fn create(
        kind: ApplicationType,
        given: &[(ApplicationFlag, bool)],
    ) -> Result<(Self, Vec<ApplicationFlag>), Error> {
        let mut flags = Self::default_of(kind);
        let mut reset = Vec::new();
        for &(flag, on) in given {
            let impossible = on && !flag.is_of(kind) && flag.contradicts()
                || on && kind == HostGroup && flag == ApplicationFlag::WindowsInitiated
                || !on && kind == HostGroup && flag == ApplicationFlag::HostInitiated;
            if impossible {
                return Err(Error::new(Reason::InvalidFlags, contradiction(kind, flag, on)));
            }
            if on && flag == ApplicationFlag::DirectPasswordSync {
                return Err(Error::new(
                    Reason::DirectSyncAtCreate,
                    "direct_password_sync is not for creation; create the application, then update it",
                ));
            }
            if flag.is_of(kind) {
                flags.set(flag, on);
            } else if on {
                reset.push(flag);
            }
        }
        Ok((flags, reset))
    }

    /// Flags as they are stored.
    #[must_use]
    pub fn from_stored(flags: impl IntoIterator<Item = ApplicationFlag>) -> Self {
        Self(flags.into_iter().collect())
    }

    /// Whether this one is on.
    #[must_use]
    pub fn has(&self, flag: ApplicationFlag) -> bool {
        self.0.contains(&flag)
    }

    /// Switches one.
    pub fn set(&mut self, flag: ApplicationFlag, on: bool) {
        if on {
            self.0.insert(flag);
        } else {
            self.0.remove(&flag);
        }
    }

    /// Those that are on.
    pub fn iter(&self) -> impl Iterator<Item = ApplicationFlag> {
        self.0.iter().copied()
    }
}

fn contradiction(kind: ApplicationType, flag: ApplicationFlag, on: bool) -> String {
    let (has, lacks): (Vec<_>, Vec<_>) =
        ApplicationFlag::ALL.iter().partition(|flag| flag.is_of(kind));
    let names = |flags: Vec<&ApplicationFlag>| {
        flags.into_iter().map(|flag| flag.as_str()).collect::<Vec<_>>().join(", ")
    };
    format!(
        "{}={} does not go with an application of type {}; it has the flags: {}; it never has: {}",
        flag.as_str(),
        if on { "yes" } else { "no" },
        kind.as_str(),
        if has.is_empty() { "none".to_owned() } else { names(has) },
        names(lacks),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ApplicationType::ConfigStore;

    #[test]
    fn defaults_are_those_of_the_reference_product() {
        use ApplicationFlag as F;
        let individual = ApplicationFlags::default_of(Individual);
        for on in [F::WindowsInitiated, F::ValidatePassword, F::ValidateTickets, F::TimeoutTickets]
        {
            assert!(individual.has(on), "{on:?}");
        }
        for off in [F::HostInitiated, F::AllowTickets, F::DisableCredentialCache] {
            assert!(!individual.has(off), "{off:?}");
        }
        assert_eq!(ApplicationFlags::default_of(ConfigStore).iter().count(), 0);
        assert!(ApplicationFlags::default_of(HostGroup).has(F::HostInitiated));
        assert!(!ApplicationFlags::default_of(HostGroup).has(F::WindowsInitiated));
    }

    #[test]
    fn exclusions_are_refused_with_both_lists_and_the_irrelevant_is_reset() {
        use ApplicationFlag as F;
        for (kind, flag, on) in [
            (ConfigStore, F::HostInitiated, true),
            (ConfigStore, F::AllowTickets, true),
            (Group, F::HostInitiated, true),
            (Group, F::WindowsCredentials, true),
            (Group, F::RestrictMappingCreate, true),
            (HostGroup, F::WindowsInitiated, true),
            (HostGroup, F::HostInitiated, false),
            (HostGroup, F::AllowTickets, true),
            (Individual, F::RestrictedCredentials, true),
        ] {
            let error = ApplicationFlags::create(kind, &[(flag, on)]).unwrap_err();
            assert_eq!(error.reason, Reason::InvalidFlags, "{kind:?} {flag:?}");
            assert!(error.message.contains("it never has"));
        }
        let given = [(F::ValidateTickets, true), (F::WindowsInitiated, true)];
        let (flags, reset) = ApplicationFlags::create(ConfigStore, &given).unwrap();
        assert_eq!((flags.iter().count(), reset.len()), (0, 2));
        let sync = ApplicationFlags::create(Individual, &[(F::DirectPasswordSync, true)]);
        assert_eq!(sync.unwrap_err().reason, Reason::DirectSyncAtCreate);
    }

    #[test]
    fn names_parse_back() {
        for &flag in ApplicationFlag::ALL {
            assert_eq!(ApplicationFlag::parse(flag.as_str()), Some(flag));
        }
        assert_eq!(ApplicationFlag::parse("no_such_flag"), None);
    }
}
