//! How times and states of the service are shown.

use prost_types::Timestamp;
use sso_client::v1::{ApplicationType, MasterSecretState};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

const MILLISECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// RFC 3339 in UTC, to the millisecond; `None` for a time that is absent or out of range.
pub(super) fn time(timestamp: Option<&Timestamp>) -> Option<String> {
    let timestamp = timestamp?;
    let nanos = u32::try_from(timestamp.nanos).ok().filter(|&nanos| nanos < 1_000_000_000)?;
    OffsetDateTime::from_unix_timestamp(timestamp.seconds)
        .ok()?
        .replace_nanosecond(nanos)
        .ok()?
        .format(MILLISECONDS)
        .ok()
}

/// The same for a cell; `-` where there is none.
pub(super) fn time_cell(timestamp: Option<&Timestamp>) -> String {
    time(timestamp).unwrap_or_else(|| "-".to_owned())
}

pub(super) fn yes(on: bool) -> String {
    if on { "yes" } else { "no" }.to_owned()
}

/// A text for a cell; `-` where it is empty.
pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

/// As `sso app create --type`, the server and the database spell it.
pub(super) fn application_type(kind: i32) -> &'static str {
    match ApplicationType::try_from(kind) {
        Ok(ApplicationType::Individual) => "individual",
        Ok(ApplicationType::Group) => "group",
        Ok(ApplicationType::ConfigStore) => "config-store",
        Ok(ApplicationType::HostGroup) => "host-group",
        Ok(ApplicationType::Unspecified) | Err(_) => "unknown",
    }
}

pub(super) fn master_secret_state(state: i32) -> &'static str {
    match MasterSecretState::try_from(state) {
        Ok(MasterSecretState::Current) => "current",
        Ok(MasterSecretState::ReadOnly) => "read_only",
        Ok(MasterSecretState::NeverFetched) => "never_fetched",
        Ok(MasterSecretState::Expired) => "expired",
        Ok(MasterSecretState::Foreign) => "foreign",
        Ok(MasterSecretState::Revoked) => "revoked",
        Ok(MasterSecretState::Unspecified) | Err(_) => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let at = |seconds, nanos| time(Some(&Timestamp { seconds, nanos }));
        assert_eq!(at(0, 0).as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(at(1_700_000_000, 120_456_789).as_deref(), Some("2023-11-14T22:13:20.120Z"));
        assert_eq!(at(i64::MAX, 0), None);
        assert_eq!(at(0, -1), None);
        assert_eq!(time_cell(None), "-");
    }

    #[test]
    fn states_and_types_of_later_versions_are_unknown() {
        assert_eq!(application_type(3), "config-store");
        assert_eq!(application_type(4), "host-group");
        assert_eq!(application_type(99), "unknown");
        assert_eq!(master_secret_state(2), "read_only");
        assert_eq!(master_secret_state(0), "unknown");
    }
}
