//! Who may administer the master secret, and how often they may try a password.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sso_core::{acceptor::Peer, local::LocalPeer};
use sso_proto::{Event, Reason, Refusal};
use tonic::Extensions;

use crate::settings::{AdministratorEntry, Settings, first_match};

/// Wrong passwords that one administrator may try within [`WINDOW`].
const ATTEMPTS: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);

/// An administrator of the settings, and how they came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Administrator {
    /// As in the settings.
    pub name: String,
    /// User and process, or address and certificate.
    from: String,
}

impl fmt::Display for Administrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.from)
    }
}

/// The administrator who calls.
///
/// # Errors
/// `NOT_MASTER_ADMINISTRATOR` for everybody else; `MASTER_ADMINISTRATION_LOCAL` over the network,
/// where the settings do not allow it.
pub fn admit(
    settings: &Settings,
    extensions: &Extensions,
    method: &'static str,
) -> Result<Administrator, Refusal> {
    let admitted = match (extensions.get::<LocalPeer>(), extensions.get::<Peer>()) {
        (Some(local), None) => at_socket(&settings.administrator, local),
        (None, Some(peer)) => over_tls(settings, peer),
        (Some(_), Some(_)) | (None, None) => {
            Err(Refusal::new(Reason::NotAuthenticated, "nobody can say who calls"))
        }
    };
    admitted.inspect_err(|refusal| {
        let local = extensions.get::<LocalPeer>().map(|it| (it.uid, it.user.clone(), it.pid));
        let peer = extensions.get::<Peer>();
        let certificate = peer.and_then(|it| it.certificate.as_ref());
        tracing::warn!(
            event = refusal.reason.event().unwrap_or(Event::MasterSecretRefused.number()),
            method,
            ?local,
            addr = ?peer.map(|it| it.addr),
            certificate = certificate.map(|it| it.thumbprint_sha256.as_str()),
            reason = refusal.reason.as_str(),
            "administration of the master secret refused"
        );
    })
}

fn at_socket(
    administrators: &[AdministratorEntry],
    local: &LocalPeer,
) -> Result<Administrator, Refusal> {
    // A user without a name is nobody of the settings.
    let user = local.user.as_deref();
    let found = user.and_then(|user| {
        administrators.iter().find(|it| it.user.as_deref() == Some(user)).map(|it| (it, user))
    });
    let Some((entry, user)) = found else {
        let who = user.map_or_else(|| format!("user {}", local.uid), str::to_owned);
        let message = format!(
            "{who} does not administer the master secret: add an [[administrator]] with this user \
             to the settings of the master secret server"
        );
        return Err(Refusal::new(Reason::NotMasterAdministrator, message));
    };
    let pid = local.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
    Ok(Administrator { name: entry.name.clone(), from: format!("local user {user}{pid}") })
}

fn over_tls(settings: &Settings, peer: &Peer) -> Result<Administrator, Refusal> {
    if !settings.administration.remote {
        let message = "the master secret is administered on the machine of the master alone: call \
                       at its socket, or set administration.remote = true there";
        return Err(Refusal::new(Reason::MasterAdministrationLocal, message));
    }
    let rules = settings.administrator.iter();
    let rules = rules.filter_map(|it| Some((it, it.certificate.as_ref()?)));
    let certificate = peer.certificate.as_deref();
    let found = certificate.and_then(|it| Some((first_match(rules, it)?, it)));
    let Some((entry, certificate)) = found else {
        let message = "no [[administrator]] of the settings of the master secret server has this \
                       certificate";
        return Err(Refusal::new(Reason::NotMasterAdministrator, message));
    };
    let from = format!("{}, certificate {}", peer.addr, certificate.thumbprint_sha256);
    Ok(Administrator { name: entry.name.clone(), from })
}

/// Wrong passwords of the last minute, by administrator.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<String, Vec<Duration>>>);

impl Attempts {
    /// Counts an attempt before it is made, so that many at once are counted, too.
    ///
    /// # Errors
    /// `OVERLOADED` after five wrong ones within a minute.
    pub fn begin(&self, name: &str, now: Duration) -> Result<(), Refusal> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.entry(name.to_owned()).or_default();
        own.retain(|&at| now.saturating_sub(at) < WINDOW);
        if own.len() >= ATTEMPTS {
            let message = format!(
                "{name} tried {ATTEMPTS} wrong passwords or keys within {} s: wait a minute",
                WINDOW.as_secs()
            );
            return Err(Refusal::new(Reason::Overloaded, message));
        }
        own.push(now);
        Ok(())
    }

    /// The attempt that began at this moment was no wrong password.
    pub fn forgive(&self, name: &str, began: Duration) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = all.get_mut(name)
            && let Some(place) = own.iter().position(|&at| at == began)
        {
            own.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(user: Option<&str>) -> LocalPeer {
        LocalPeer { uid: 1000, user: user.map(Into::into), pid: Some(7), program: None }
    }

    fn administrators() -> Vec<AdministratorEntry> {
        let of = |name: &str, user: Option<&str>| AdministratorEntry {
            name: name.to_owned(),
            user: user.map(str::to_owned),
            certificate: None,
        };
        vec![of("remote", None), of("anna", Some("anna"))]
    }

    #[test]
    fn users_of_the_settings_and_nobody_else() {
        let admitted = at_socket(&administrators(), &local(Some("anna"))).unwrap();
        assert_eq!(admitted.to_string(), "anna (local user anna, process 7)");
        for user in [Some("berta"), Some("remote"), Some(""), None] {
            let refusal = at_socket(&administrators(), &local(user)).unwrap_err();
            assert_eq!(refusal.reason, Reason::NotMasterAdministrator);
        }
    }

    #[test]
    fn wrong_passwords_are_limited_for_each_administrator() {
        let attempts = Attempts::default();
        let seconds = Duration::from_secs;
        for at in 0..5 {
            attempts.begin("anna", seconds(at)).unwrap();
        }
        let refusal = attempts.begin("anna", seconds(5)).unwrap_err();
        assert_eq!(refusal.reason, Reason::Overloaded);
        attempts.begin("berta", seconds(5)).unwrap();
        // A right one does not count.
        attempts.forgive("anna", seconds(3));
        attempts.begin("anna", seconds(6)).unwrap();
        assert!(attempts.begin("anna", seconds(59)).is_err());
        attempts.begin("anna", seconds(60)).unwrap();
    }
}
