//! What has to become of a client: said once, from the rules alone.

use super::zoo::Kind;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    Tls12,
    Tls13,
}

/// What the server does about certificates whose revocation it cannot tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    HardFail,
    SoftFail,
    Off,
}

/// Which revocation lists the server has of the authorities of the zoo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lists {
    Good,
    /// None.
    Missing,
    Expired,
    /// One of an authority with another name.
    OtherIssuer,
    /// Those of the authorities' namesakes, which name the good certificates as revoked.
    Namesake,
}

/// How the server is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) minimum: Version,
    pub(crate) policy: Policy,
    pub(crate) lists: Lists,
    /// Whether a client may do without a certificate.
    pub(crate) optional: bool,
}

impl Variant {
    /// A server that requires certificates.
    pub(crate) fn of(minimum: Version, policy: Policy, lists: Lists) -> Self {
        Self { minimum, policy, lists, optional: false }
    }

    pub(crate) const MINIMA: [Version; 2] = [Version::Tls13, Version::Tls12];
    pub(crate) const POLICIES: [Policy; 3] = [Policy::HardFail, Policy::SoftFail, Policy::Off];
    pub(crate) const LISTS: [Lists; 5] =
        [Lists::Good, Lists::Missing, Lists::Expired, Lists::OtherIssuer, Lists::Namesake];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Served,
    /// Served although the server cannot tell, for this reason, whether the certificate is revoked.
    LetThrough(&'static str),
    Refused(&'static str),
}

pub(crate) const PROTOCOL_VERSION: &str = "PROTOCOL_VERSION";
pub(crate) const NO_CLIENT_CERTIFICATE: &str = "NO_CLIENT_CERTIFICATE";
pub(crate) const CERTIFICATE_EXPIRED: &str = "CERTIFICATE_EXPIRED";
pub(crate) const CERTIFICATE_NOT_YET_VALID: &str = "CERTIFICATE_NOT_YET_VALID";
pub(crate) const CERTIFICATE_REVOKED: &str = "CERTIFICATE_REVOKED";
pub(crate) const CERTIFICATE_UNUSABLE: &str = "CERTIFICATE_UNUSABLE";
pub(crate) const UNTRUSTED_ISSUER: &str = "UNTRUSTED_ISSUER";
pub(crate) const WRONG_PURPOSE: &str = "WRONG_PURPOSE";
pub(crate) const LIST_UNAVAILABLE: &str = "REVOCATION_LIST_UNAVAILABLE";
pub(crate) const LIST_EXPIRED: &str = "REVOCATION_LIST_EXPIRED";
pub(crate) const LIST_UNTRUSTED: &str = "REVOCATION_LIST_UNTRUSTED";

/// What becomes of a client of this version that shows this.
pub(crate) fn expected(variant: Variant, version: Version, shown: Kind) -> Outcome {
    if version < variant.minimum {
        return Outcome::Refused(PROTOCOL_VERSION);
    }
    match shown {
        Kind::Nothing if variant.optional => Outcome::Served,
        Kind::Nothing => Outcome::Refused(NO_CLIENT_CERTIFICATE),
        Kind::Expired => Outcome::Refused(CERTIFICATE_EXPIRED),
        Kind::NotYetValid => Outcome::Refused(CERTIFICATE_NOT_YET_VALID),
        Kind::OtherAuthority | Kind::Namesake => Outcome::Refused(UNTRUSTED_ISSUER),
        Kind::WrongPurpose => Outcome::Refused(WRONG_PURPOSE),
        Kind::Good | Kind::ByIntermediate => revocation(variant, false),
        Kind::Revoked | Kind::ByRevokedIntermediate => revocation(variant, true),
    }
}

/// A list that is signed by its authority is believed in what it revokes, however old it is.
fn revocation(variant: Variant, revoked: bool) -> Outcome {
    if variant.policy == Policy::Off {
        return Outcome::Served;
    }
    let trouble = match variant.lists {
        Lists::Good | Lists::Expired if revoked => return Outcome::Refused(CERTIFICATE_REVOKED),
        Lists::Good => return Outcome::Served,
        Lists::Expired => LIST_EXPIRED,
        Lists::Missing | Lists::OtherIssuer => LIST_UNAVAILABLE,
        Lists::Namesake => LIST_UNTRUSTED,
    };
    match variant.policy {
        Policy::SoftFail => Outcome::LetThrough(trouble),
        Policy::HardFail | Policy::Off => Outcome::Refused(trouble),
    }
}

/// The number of the alert that a client sees for a reason.
pub(crate) fn alert(reason: &str) -> u8 {
    match reason {
        WRONG_PURPOSE => 43,
        CERTIFICATE_REVOKED => 44,
        CERTIFICATE_EXPIRED | CERTIFICATE_NOT_YET_VALID => 45,
        UNTRUSTED_ISSUER => 48,
        PROTOCOL_VERSION => 70,
        LIST_UNAVAILABLE | LIST_EXPIRED | LIST_UNTRUSTED => 113,
        NO_CLIENT_CERTIFICATE => 116,
        _ => panic!("no alert is known for {reason}"),
    }
}

/// The rules once more, as rows that a person can read.
#[test]
fn the_oracle_knows_the_rules() {
    use Lists::{Expired, Good, Missing, Namesake, OtherIssuer};
    use Outcome::{LetThrough, Refused, Served};
    use Policy::{HardFail, Off, SoftFail};
    use Version::{Tls12, Tls13};
    let rows = [
        (Tls13, HardFail, Good, Tls13, Kind::Good, Served),
        (Tls13, HardFail, Good, Tls12, Kind::Good, Refused("PROTOCOL_VERSION")),
        (Tls12, HardFail, Good, Tls12, Kind::Good, Served),
        (Tls12, HardFail, Good, Tls12, Kind::Nothing, Refused("NO_CLIENT_CERTIFICATE")),
        (Tls13, HardFail, Good, Tls13, Kind::Revoked, Refused("CERTIFICATE_REVOKED")),
        (Tls13, HardFail, Missing, Tls13, Kind::Good, Refused("REVOCATION_LIST_UNAVAILABLE")),
        (Tls13, HardFail, Missing, Tls13, Kind::Revoked, Refused("REVOCATION_LIST_UNAVAILABLE")),
        (Tls13, HardFail, Expired, Tls13, Kind::Good, Refused("REVOCATION_LIST_EXPIRED")),
        (Tls13, HardFail, OtherIssuer, Tls13, Kind::Good, Refused("REVOCATION_LIST_UNAVAILABLE")),
        (Tls13, HardFail, Namesake, Tls13, Kind::Good, Refused("REVOCATION_LIST_UNTRUSTED")),
        (Tls13, SoftFail, Missing, Tls13, Kind::Good, LetThrough("REVOCATION_LIST_UNAVAILABLE")),
        (Tls13, SoftFail, Expired, Tls13, Kind::Good, LetThrough("REVOCATION_LIST_EXPIRED")),
        (Tls13, SoftFail, Expired, Tls13, Kind::Revoked, Refused("CERTIFICATE_REVOKED")),
        (Tls13, SoftFail, Good, Tls13, Kind::Revoked, Refused("CERTIFICATE_REVOKED")),
        (Tls13, SoftFail, Missing, Tls13, Kind::Expired, Refused("CERTIFICATE_EXPIRED")),
        (Tls13, Off, Good, Tls13, Kind::Revoked, Served),
        (Tls13, Off, Good, Tls13, Kind::WrongPurpose, Refused("WRONG_PURPOSE")),
        (Tls13, Off, Good, Tls13, Kind::OtherAuthority, Refused("UNTRUSTED_ISSUER")),
    ];
    for (minimum, policy, lists, version, shown, wanted) in rows {
        let variant = Variant::of(minimum, policy, lists);
        assert_eq!(expected(variant, version, shown), wanted, "{variant:?} {version:?} {shown:?}");
        let optional = Variant { optional: true, ..variant };
        let wanted = if shown == Kind::Nothing { Served } else { wanted };
        assert_eq!(
            expected(optional, version, shown),
            wanted,
            "{optional:?} {version:?} {shown:?}"
        );
    }
}
