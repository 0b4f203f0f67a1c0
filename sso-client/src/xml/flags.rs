//! The `<flags …/>` element: every attribute the reference product knows.

use std::collections::BTreeMap;

use super::reader::{Element, XmlError};

macro_rules! flags {
    ($($variant:ident = $name:literal $(| $older:literal)*, $summary:literal;)*) => {
        /// A flag of an application or of a password-sync adapter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Flag { $(#[doc = $summary] $variant,)* }

        impl Flag {
            /// Every flag, in the order in which they are written.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The attribute name it is written with.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Spellings of older files.
            fn older(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($older),*],)* }
            }
        }
    };
}

flags! {
    GroupApp = "groupApp", "Credentials belong to groups (fixed at creation).";
    ConfigStoreApp = "configStoreApp", "Keeps configurations (fixed at creation).";
    WindowsInitiatedSso = "windowsInitiatedSSO", "Directory accounts sign on to the external system.";
    HostInitiatedSso = "hostInitiatedSSO", "External accounts act as directory accounts.";
    ValidatePassword = "validatePassword", "The external password is compared.";
    AllowTickets = "allowTickets", "Tickets may be issued.";
    ValidateTickets = "validateTickets", "A ticket must be redeemed for its own issuer.";
    TimeoutTickets = "timeoutTickets" | "ticketTimeout", "Tickets expire.";
    AllowLocalAccounts = "allowLocalAccounts" | "allowLocalGroups", "Accounts without a domain are accepted.";
    AdminAccountSame = "adminAccountSame" | "adminGroupSame", "The administrators are the affiliate administrators.";
    DisableCredCache = "disableCredCache", "Look-ups always go to the database.";
    DirectPasswordSync = "directPasswordSync", "Directory passwords are the external passwords.";
    WindowsCreds = "windowsCreds", "The credentials are directory credentials themselves.";
    RestrictedCreds = "restrictedCreds", "Credentials for restricted clients.";
    ShowFilterOnly = "showFilterOnly", "Shown as a password filter.";
    RestrictMappingCreate = "restrictMappingCreate", "Users may not create mappings.";
    OneTimeTickets = "oneTimeTickets", "A ticket is redeemed once; the reference product does not know it.";
    RequireTicketAudience = "requireTicketAudience", "Only tickets issued for it are redeemed; the reference product does not know it.";
    GroupAdapter = "groupAdapter", "An adapter that groups adapters.";
    SyncFromAdapter = "syncFromAdapter", "External password changes are taken.";
    VerifyOldPassword = "verifyOldPassword", "An external change must carry the old password.";
    ChangeWindowsPassword = "changeWindowsPassword", "An external change is carried to the directory.";
    SyncToAdapter = "syncToAdapter", "Directory password changes are sent.";
    SendOldPassword = "sendOldPassword", "The old password is sent too.";
    AllowMappingConflicts = "allowMappingConflicts", "Conflicting mappings are accepted.";
    EnableApp = "enableApp", "The application is enabled.";
}

impl Flag {
    fn parse(name: &str) -> Option<Self> {
        let same = |known: &str| known.eq_ignore_ascii_case(name);
        Self::ALL
            .iter()
            .copied()
            .find(|flag| same(flag.as_str()) || flag.older().iter().any(|&older| same(older)))
    }

    /// Whether only password-sync adapters have it.
    #[must_use]
    pub fn is_of_adapters(self) -> bool {
        (Self::GroupAdapter..=Self::AllowMappingConflicts).contains(&self)
            || self == Self::ShowFilterOnly
    }
}

/// The flags a file gives; what it leaves out stays open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(BTreeMap<Flag, bool>);

impl Flags {
    /// What the file says of the flag; `None` when it says nothing.
    #[must_use]
    pub fn value(&self, flag: Flag) -> Option<bool> {
        self.0.get(&flag).copied()
    }

    /// Whether the flag is given and on.
    #[must_use]
    pub fn is_on(&self, flag: Flag) -> bool {
        self.value(flag) == Some(true)
    }

    /// Sets one flag.
    pub fn set(&mut self, flag: Flag, on: bool) {
        self.0.insert(flag, on);
    }

    /// The flags that are given, in writing order.
    pub fn iter(&self) -> impl Iterator<Item = (Flag, bool)> {
        self.0.iter().map(|(&flag, &on)| (flag, on))
    }

    /// Whether no flag is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn parse(element: &Element) -> Result<Self, XmlError> {
        if !element.exact_text()?.trim().is_empty() {
            element.require_no_text()?;
        }
        let mut flags = Self::default();
        for attribute in &element.attributes {
            let flag = Flag::parse(&attribute.name).ok_or_else(|| attribute.unknown(element))?;
            if flags.0.insert(flag, attribute.as_bool()?).is_some() {
                let message =
                    format!("flag '{}' stands twice, once in an older spelling", flag.as_str());
                return Err(attribute.error(message));
            }
        }
        Ok(flags)
    }
}
