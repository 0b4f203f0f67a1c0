//! The flags of an application: options, parts of a message and what is shown, from one list.

use std::collections::BTreeMap;

use clap::Args;
use sso_client::v1::Application;

use super::args::parse_yes;

macro_rules! flags {
    ($($flag:ident, $option:literal = $help:literal;)*) => {
        /// One option for each flag; what is not given stays as it is, or as the type has it.
        #[derive(Clone, Debug, Default, Args)]
        #[command(next_help_heading = "Flags")]
        pub(crate) struct FlagArgs {
            $(
                #[doc = $help]
                #[arg(long, value_name = "yes|no", value_parser = parse_yes, conflicts_with = "file")]
                pub(super) $flag: Option<bool>,
            )*
        }

        impl FlagArgs {
            /// Puts the flags that are given into the message, and names them.
            pub(super) fn apply(&self, application: &mut Application) -> Vec<&'static str> {
                let mut paths = Vec::new();
                $(
                    if self.$flag.is_some() {
                        application.$flag = self.$flag;
                        paths.push(stringify!($flag));
                    }
                )*
                paths
            }
        }

        /// Every flag by the name it has in JSON.
        pub(super) fn by_name(application: &Application) -> BTreeMap<&'static str, bool> {
            BTreeMap::from([$((stringify!($flag), application.$flag.unwrap_or_default()),)*])
        }

        /// The options that are on, or those that are off.
        pub(super) fn options(application: &Application, on: bool) -> Vec<&'static str> {
            let all = [$(($option, application.$flag.unwrap_or_default()),)*];
            all.into_iter().filter_map(|(option, is_on)| (is_on == on).then_some(option)).collect()
        }
    };
}

flags! {
    windows_initiated, "windows-initiated" =
        "Callers get the credentials mapped to their own account";
    host_initiated, "host-initiated" = "External users log on as the account they are mapped to";
    validate_password, "validate-password" =
        "A host-initiated logon must give the stored credentials";
    allow_tickets, "allow-tickets" = "Tickets may be redeemed here (SSO administrators set it)";
    validate_tickets, "validate-tickets" =
        "The sender must be the one a ticket was issued to (SSO administrators set it)";
    timeout_tickets, "timeout-tickets" = "Tickets end (SSO administrators set it)";
    one_time_tickets, "one-time-tickets" =
        "A ticket is redeemed here once (SSO administrators set it)";
    require_ticket_audience, "require-ticket-audience" =
        "Only tickets issued for this application are redeemed (SSO administrators set it)";
    disable_credential_cache, "disable-credential-cache" = "Look-ups always read the database";
    restrict_mapping_create, "restrict-mapping-create" = "Users do not create mappings themselves";
    windows_credentials, "windows-credentials" =
        "The stored credentials are directory credentials; fixed at creation";
    restricted_credentials, "restricted-credentials" =
        "Kept for clients that know it; fixed at creation";
    direct_password_sync, "direct-password-sync" =
        "Directory passwords are stored as the credentials; not at creation";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_reach_the_message_under_their_names() {
        let flags = FlagArgs {
            allow_tickets: Some(true),
            validate_tickets: Some(false),
            ..FlagArgs::default()
        };
        let mut application = Application::default();
        assert_eq!(flags.apply(&mut application), ["allow_tickets", "validate_tickets"]);
        assert_eq!(application.allow_tickets, Some(true));
        assert_eq!(application.validate_tickets, Some(false));
        assert_eq!(application.timeout_tickets, None);
        assert_eq!(options(&application, true), ["allow-tickets"]);
        assert_eq!(by_name(&application).len(), 13);
    }
}
