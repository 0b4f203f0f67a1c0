//! The life of the master secret: thin and typed over `sso.v1.Secret`, which master secret servers
//! serve. A [`Client`] for it is connected with [`Profile::resolve_master`](crate::Profile::resolve_master).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use sso_client::{Client, Environment, Overrides, Profile};
//!
//! let profile = Profile::resolve_master(&Overrides::default(), &Environment::read())?;
//! let status = Client::connect(&profile)?.secret().status().await?;
//! let warning = status.backup.map(|backup| backup.warning);
//! # let _ = warning; Ok(())
//! # }
//! ```

use sso_core::memory::LockedKey;
use sso_proto::v1::{
    BackupLocks, BackupOpener, BackupRequest, DestroyRequest, GetSecretStatusRequest,
    GetSecretStatusResponse, OfficerKey, PrepareRequest, PromoteRequest, ReadmitServerRequest,
    ReloadTlsRequest, ReloadTlsResponse, RestoreRequest, RestoreResponse, RetireRequest,
    RevokeServerRequest, RevokeServerResponse, RotateRequest, RotateResponse, VerifyBackupRequest,
    VerifyBackupResponse, secret_client::SecretClient,
};

use crate::{Client, ClientError, SecretText};

/// An officer who opens a backup alone, with the private half of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Officer {
    /// Who it is.
    pub name: String,
    /// X25519 public key.
    pub public_key: [u8; 32],
}

/// How many shares there are, and how many of them open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareCount {
    /// So many open.
    pub needed: u32,
    /// So many are made.
    pub total: u32,
}

/// How a backup is locked: each of them opens it by itself.
#[derive(Clone, Debug, Default)]
pub struct Locks {
    /// 7 to 256 characters.
    pub password: Option<SecretText>,
    /// At most 512 characters; anybody who has the file can read it.
    pub reminder: String,
    /// Each opens with the private half of the key.
    pub officers: Vec<Officer>,
    /// Texts of which some open together.
    pub shares: Option<ShareCount>,
}

/// How a backup is opened.
#[derive(Debug)]
pub enum Opener {
    /// With its password.
    Password(SecretText),
    /// With the backup key that an officer took from the file.
    BackupKey(LockedKey),
    /// With as many shares as it needs.
    Shares(Vec<SecretText>),
}

/// A backup that was made just now. Nobody has opened it yet.
pub struct MadeBackup {
    /// The text of the file. The keys in it are locked.
    pub document: String,
    /// One text for each holder of a share.
    pub shares: Vec<SecretText>,
}

/// The generation that was prepared, with a backup that has it.
pub struct Prepared {
    /// Its number.
    pub generation: u32,
    /// Hexadecimal.
    pub fingerprint: String,
    /// To be written and verified before the generation is used.
    pub backup: MadeBackup,
}

/// Generations, masters, servers, backups of the master secret.
#[derive(Clone, Debug)]
pub struct Secret {
    client: Client,
}

impl Secret {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Generations, masters, servers, backup, sealing again.
    ///
    /// # Errors
    /// See [`ClientError`]; the same for every method here.
    pub async fn status(&self) -> Result<GetSecretStatusResponse, ClientError> {
        self.client
            .read(GetSecretStatusRequest {}, |channel, request| async move {
                SecretClient::new(channel).get_status(request).await
            })
            .await
    }

    /// Generates the next generation, unless one is prepared already, and gives a backup that has it.
    pub async fn prepare(&self, locks: &Locks) -> Result<Prepared, ClientError> {
        let message = PrepareRequest { locks: Some(locks.message()) };
        let mut answer = self
            .client
            .write(message, |channel, request| async move {
                SecretClient::new(channel).prepare(request).await
            })
            .await?;
        Ok(Prepared {
            generation: answer.generation,
            fingerprint: std::mem::take(&mut answer.fingerprint),
            backup: made(std::mem::take(&mut answer.document), std::mem::take(&mut answer.shares)),
        })
    }

    /// A backup of every generation that was not destroyed.
    pub async fn backup(&self, locks: &Locks) -> Result<MadeBackup, ClientError> {
        let message = BackupRequest { locks: Some(locks.message()) };
        let mut answer = self
            .client
            .write(message, |channel, request| async move {
                SecretClient::new(channel).backup(request).await
            })
            .await?;
        Ok(made(std::mem::take(&mut answer.document), std::mem::take(&mut answer.shares)))
    }

    /// Opens a backup and compares it with the keystore; the generations that it gives back count as
    /// backed up from then on. `recipient_key` is that of a server that is to open every row with the
    /// keys of the file; empty for none.
    pub async fn verify(
        &self,
        document: &str,
        opener: &Opener,
        recipient_key: &[u8],
    ) -> Result<VerifyBackupResponse, ClientError> {
        let message = VerifyBackupRequest {
            document: document.to_owned(),
            opener: Some(opener.message()),
            recipient_key: recipient_key.to_vec(),
        };
        self.client
            .write(message, |channel, request| async move {
                SecretClient::new(channel).verify_backup(request).await
            })
            .await
    }

    /// Hands the prepared generation out, to be activated when everybody has it. Again with more names:
    /// those are not waited for.
    pub async fn rotate(
        &self,
        generation: u32,
        leave_behind: &[String],
        reseal_rows_per_second: u32,
    ) -> Result<RotateResponse, ClientError> {
        let leave_behind = leave_behind.to_vec();
        let message = RotateRequest { generation, leave_behind, reseal_rows_per_second };
        self.client
            .write(message, |channel, request| async move {
                SecretClient::new(channel).rotate(request).await
            })
            .await
    }

    /// Closes a draining generation, once the servers have proved that nothing is sealed under it.
    pub async fn retire(&self, generation: u32) -> Result<(), ClientError> {
        self.client
            .write(RetireRequest { generation }, |channel, request| async move {
                SecretClient::new(channel).retire(request).await
            })
            .await
            .map(|_| ())
    }

    /// Takes the key of a retired generation away for good.
    pub async fn destroy(&self, generation: u32, fingerprint: &str) -> Result<(), ClientError> {
        let message = DestroyRequest { generation, fingerprint: fingerprint.to_owned() };
        self.client
            .write(message, |channel, request| async move {
                SecretClient::new(channel).destroy(request).await
            })
            .await
            .map(|_| ())
    }

    /// Adds the generations of a backup that the keystore lacks; all of them or none.
    pub async fn restore(
        &self,
        document: &str,
        opener: &Opener,
    ) -> Result<RestoreResponse, ClientError> {
        let message =
            RestoreRequest { document: document.to_owned(), opener: Some(opener.message()) };
        self.client
            .write(message, |channel, request| async move {
                SecretClient::new(channel).restore(request).await
            })
            .await
    }

    /// Makes the master that answers the primary, and gives its new epoch.
    pub async fn promote(&self, force: bool) -> Result<u64, ClientError> {
        self.client
            .write(PromoteRequest { force }, |channel, request| async move {
                SecretClient::new(channel).promote(request).await
            })
            .await
            .map(|answer| answer.epoch)
    }

    /// Takes the master secret from a server: it forgets its keys.
    pub async fn revoke_server(&self, name: &str) -> Result<RevokeServerResponse, ClientError> {
        let message = RevokeServerRequest { name: name.to_owned() };
        self.client
            .write(message, |channel, request| async move {
                SecretClient::new(channel).revoke_server(request).await
            })
            .await
    }

    /// Gives a revoked server the master secret again.
    pub async fn readmit_server(&self, name: &str) -> Result<(), ClientError> {
        let message = ReadmitServerRequest { name: name.to_owned() };
        self.client
            .write(message, |channel, request| async move {
                SecretClient::new(channel).readmit_server(request).await
            })
            .await
            .map(|_| ())
    }

    /// Has the master that answers load its certificate, key, authorities and revocation lists again;
    /// what is not good enough changes nothing.
    pub async fn reload_tls(&self) -> Result<ReloadTlsResponse, ClientError> {
        self.client
            .write(ReloadTlsRequest {}, |channel, request| async move {
                SecretClient::new(channel).reload_tls(request).await
            })
            .await
    }
}

fn made(document: String, shares: Vec<String>) -> MadeBackup {
    MadeBackup { document, shares: shares.into_iter().map(SecretText::new).collect() }
}

impl Locks {
    fn message(&self) -> BackupLocks {
        // Expose: into the request that makes the backup.
        let password = self.password.as_ref().map(|password| password.expose().to_owned());
        BackupLocks {
            password: password.unwrap_or_default(),
            reminder: self.reminder.clone(),
            officers: self
                .officers
                .iter()
                .map(|officer| OfficerKey {
                    name: officer.name.clone(),
                    public_key: officer.public_key.to_vec(),
                })
                .collect(),
            shares: self.shares.map_or(0, |shares| shares.total),
            shares_needed: self.shares.map_or(0, |shares| shares.needed),
        }
    }
}

impl Opener {
    fn message(&self) -> BackupOpener {
        let mut message = BackupOpener::default();
        // Expose: into the request that opens the backup, which wipes itself.
        match self {
            Self::Password(password) => password.expose().clone_into(&mut message.password),
            Self::BackupKey(key) => message.backup_key = key.expose().to_vec(),
            Self::Shares(shares) => {
                message.shares = shares.iter().map(|share| share.expose().to_owned()).collect();
            }
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    #[test]
    fn each_opener_fills_its_own_part() {
        let password = Opener::Password(text("canary-1")).message();
        assert_eq!((password.password.as_str(), password.shares.len()), ("canary-1", 0));
        let key = Opener::BackupKey(LockedKey::from_bytes(&[7; 32]).unwrap()).message();
        assert_eq!((key.backup_key.as_slice(), key.password.as_str()), ([7; 32].as_slice(), ""));
        let shares = Opener::Shares(vec![text("canary-2"), text("canary-3")]).message();
        assert_eq!(shares.shares, ["canary-2", "canary-3"]);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let locks = Locks { password: Some(text("canary-4")), ..Locks::default() };
        let opener = Opener::Shares(vec![text("canary-5")]);
        let shown = format!("{locks:?} {:?} {opener:?} {:?}", locks.message(), opener.message());
        assert!(!shown.contains("canary"), "{shown}");
        let locks = Locks { shares: Some(ShareCount { needed: 3, total: 5 }), ..Locks::default() }
            .message();
        assert_eq!((locks.shares_needed, locks.shares, locks.password.as_str()), (3, 5, ""));
    }
}
