//! Whether trying again helps.

use sso_core::tls::TlsReason;

use crate::ClientError;

/// What to do with a message whose step failed. BizTalk knows the first two as a retry and as a
/// suspended, resumable message, the last one as suspended for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Again {
    /// Trying again later helps, and nobody has to do anything: an outage, a deadline, too much load.
    Later,
    /// The message is fine, but somebody has to repair something first: a certificate, an address,
    /// credentials, a right. Keep the message; trying again costs nothing and begins to work then.
    AfterRepair,
    /// The same message is refused every time: it is wrong, or its ticket is worth nothing any more.
    Never,
}

impl Again {
    /// Whether the message may get through unchanged, now or after a repair.
    #[must_use]
    pub fn helps(self) -> bool {
        self != Self::Never
    }
}

/// What an error of a call to the SSO server comes to.
pub(super) fn of_call(error: &ClientError) -> Again {
    match error {
        ClientError::Unreachable { trust: false, .. }
        | ClientError::Unavailable(_)
        | ClientError::Fault(_) => Again::Later,
        ClientError::Unreachable { trust: true, .. }
        | ClientError::Settings(_)
        | ClientError::Denied(_)
        | ClientError::NotFound(_)
        | ClientError::Invalid(_)
        | ClientError::Conflict(_)
        | ClientError::Precondition(_)
        | ClientError::Damaged(_) => Again::AfterRepair,
    }
}

/// What a handshake that failed comes to. Lists are fetched and issued anew without anybody's doing;
/// certificates are not.
pub(super) fn of_tls(reason: TlsReason) -> Again {
    let cures_itself = matches!(
        reason,
        TlsReason::RevocationListUnavailable
            | TlsReason::RevocationListExpired
            | TlsReason::HandshakeTimeout
            | TlsReason::Disconnected
            | TlsReason::TooManyConnections
    );
    if cures_itself { Again::Later } else { Again::AfterRepair }
}
