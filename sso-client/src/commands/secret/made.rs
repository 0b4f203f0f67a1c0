//! The files of a backup that was made: written for their owner alone, never over others, read again
//! and opened. What could not be proved is removed.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use sso_client::{
    ClientError,
    secret::{Locks, MadeBackup, Opener, Secret, ShareCount},
    v1::VerifyBackupResponse,
};
use sso_core::settings::write_private;
use zeroize::Zeroizing;

use super::{document::Document, opener::read_share};
use crate::failure::Failure;

/// Where a backup and its shares are to go.
#[derive(Debug)]
pub(super) struct Target {
    file: PathBuf,
    shares: Vec<PathBuf>,
    folder: Option<PathBuf>,
}

impl Target {
    /// Refuses to begin where a file is in the way or its folder is missing.
    pub(super) fn new(file: &Path, shares: Option<(ShareCount, PathBuf)>) -> Result<Self, Failure> {
        check_free(file)?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (paths, folder) = match shares {
            None => (Vec::new(), None),
            Some((count, folder)) => {
                let path = |number| folder.join(format!("{name}.share-{number}"));
                ((1..=count.total).map(path).collect(), Some(folder))
            }
        };
        for path in &paths {
            match fs::symlink_metadata(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Failure::io(path.display().to_string(), error)),
                Ok(_) => return Err(exists(path)),
            }
        }
        Ok(Self { file: file.to_owned(), shares: paths, folder })
    }

    /// Writes all files or none.
    fn write(&self, made: &MadeBackup) -> Result<Written, Failure> {
        let mut written = Written { files: Vec::new(), kept: false, verified: None };
        if made.shares.len() != self.shares.len() {
            let message = format!("the master made {} shares", made.shares.len());
            return Err(Failure::refused(message, "it is of another version"));
        }
        written.write(&self.file, made.document.as_bytes())?;
        if let Some(folder) = &self.folder {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|error| Failure::io(folder.display().to_string(), error))?;
        }
        for (path, share) in self.shares.iter().zip(&made.shares) {
            // Expose: into a file that only its owner may read, for the holder of the share.
            let line = Zeroizing::new(format!("{}\n", share.expose()));
            written.write(path, line.as_bytes())?;
        }
        Ok(written)
    }
}

/// Refuses a file that exists, or whose folder does not.
pub(in crate::commands) fn check_free(file: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(file) {
        Ok(_) => return Err(exists(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Failure::io(file.display().to_string(), error)),
    }
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Failure::usage(format!("{} is not a folder", folder.display()))),
        Err(error) => Err(Failure::io(folder.display().to_string(), error)),
    }
}

fn exists(path: &Path) -> Failure {
    Failure::refused(
        format!("{} exists", path.display()),
        "name another file: backups and shares are never written over others",
    )
}

/// Files that were written, and are removed again unless they are kept. Once the master may have opened
/// them they count as a backup there, so that they are kept whatever becomes of the command.
pub(super) struct Written {
    files: Vec<PathBuf>,
    kept: bool,
    verified: Option<VerifyBackupResponse>,
}

impl Written {
    fn write(&mut self, path: &Path, content: &[u8]) -> Result<(), Failure> {
        write_private(path, content, false).map_err(|error| {
            match error.kind() == io::ErrorKind::AlreadyExists {
                true => exists(path),
                false => Failure::io(path.display().to_string(), error),
            }
        })?;
        self.files.push(path.to_owned());
        Ok(())
    }

    /// Keeps the files; gives those of the shares.
    pub(super) fn keep(mut self) -> Vec<PathBuf> {
        self.kept = true;
        self.files.iter().skip(1).cloned().collect()
    }

    /// What is said of files that the master refused, or may have opened. Only words of the service prove
    /// that it did not.
    fn not_verified(mut self, error: ClientError, file: &Path) -> Failure {
        if error.refusal().is_some() && self.verified.is_none() {
            self.kept = false;
            return error.into();
        }
        Failure::refused(
            format!("{}: {error}", file.display()),
            "the master may have taken the file for a backup, so it was kept: open it again with sso \
             secret verify FILE",
        )
    }

    /// Whether the master opened it again.
    pub(super) fn is_verified(&self) -> bool {
        self.verified.is_some()
    }

    /// The generations that came back when it was opened.
    pub(super) fn generations(&self) -> Vec<u32> {
        let verified = self.verified.iter();
        verified.flat_map(|it| it.generations.iter().map(|one| one.generation)).collect()
    }

    /// Whether a generation came back with the key that the keystore has.
    pub(super) fn has(&self, generation: u32, fingerprint: &str) -> bool {
        let fits = |one: &sso_client::v1::BackupGeneration| {
            one.generation == generation && one.fingerprint == fingerprint && one.in_keystore
        };
        self.verified.as_ref().is_some_and(|verified| verified.generations.iter().any(fits))
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if !self.kept {
            for file in &self.files {
                // It was made here and proves nothing; what cannot be removed stays.
                let _ = fs::remove_file(file);
            }
        }
    }
}

/// Writes a backup, reads it again and has the master open it, with every lock that can be tried here:
/// the password, then the shares as they are in their files.
pub(super) async fn back_up(
    secret: &Secret,
    made: &MadeBackup,
    target: &Target,
    locks: &Locks,
) -> Result<Written, Failure> {
    let mut written = target.write(made)?;
    let document = Document::read(&target.file)?;
    if document.text != made.document {
        return Err(Failure::refused(
            format!("{} was written and reads differently", target.file.display()),
            "check the disk; the file was removed again",
        ));
    }
    let mut openers: Vec<_> = locks.password.iter().cloned().map(Opener::Password).collect();
    if !target.shares.is_empty() {
        let shares = target.shares.iter().map(|path| read_share(path));
        openers.push(Opener::Shares(shares.collect::<Result<_, _>>()?));
    }
    for opener in &openers {
        // Also when this is cut off while the master opens it.
        written.kept = true;
        match secret.verify(&document.text, opener, &[]).await {
            Ok(verified) => written.verified = Some(verified),
            Err(error) => return Err(written.not_verified(error, &target.file)),
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use sso_client::{Refusal, SecretText};
    use sso_proto::Reason;

    use super::*;

    fn made() -> MadeBackup {
        let share = |number| SecretText::new(format!("share {number}"));
        MadeBackup { document: "text".into(), shares: (1..=3).map(share).collect() }
    }

    #[test]
    fn files_are_private_and_removed_unless_they_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (file, shares) = (folder.path().join("b"), folder.path().join("shares"));
        let target = || {
            let count = ShareCount { needed: 2, total: 3 };
            Target::new(&file, Some((count, shares.clone())))
        };
        drop(target().unwrap().write(&made()).unwrap());
        assert!(!file.exists() && fs::read_dir(&shares).unwrap().next().is_none());
        let kept = target().unwrap().write(&made()).unwrap().keep();
        assert_eq!(kept.len(), 3);
        assert_eq!(fs::read_to_string(&kept[1]).unwrap(), "share 2\n");
        for path in kept.iter().chain([&file]) {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(target().unwrap_err().message().ends_with("b exists"));
        fs::remove_file(&file).unwrap();
        assert!(target().unwrap_err().message().ends_with("b.share-1 exists"));
    }

    /// Promise 4: what the master counts as a backup is not removed, whatever the answer says.
    #[test]
    fn what_the_master_may_have_opened_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("b");
        let refused = || {
            let message = "wrong password".to_owned();
            ClientError::Denied(Refusal {
                reason: Reason::BackupPasswordWrong.as_str().to_owned(),
                event: None,
                message,
                request_id: String::new(),
            })
        };
        let cut = || ClientError::Unreachable {
            addr: "https://master:1".into(),
            reason: "the connection was cut".into(),
            trust: false,
            outcome_unknown: true,
        };
        for (error, opened_before, kept) in
            [(refused(), false, false), (refused(), true, true), (cut(), false, true)]
        {
            let made = MadeBackup { shares: Vec::new(), ..made() };
            let mut written = Target::new(&file, None).unwrap().write(&made).unwrap();
            written.kept = true;
            written.verified = opened_before.then(VerifyBackupResponse::default);
            let failure = written.not_verified(error, &file);
            assert_eq!(file.exists(), kept, "{failure:?}");
            let _ = fs::remove_file(&file);
        }
    }

    #[test]
    fn what_was_there_before_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("b");
        let target = Target::new(&file, None).unwrap();
        fs::write(&file, "of somebody else").unwrap();
        let made = MadeBackup { document: "text".into(), shares: Vec::new() };
        assert!(target.write(&made).err().unwrap().message().ends_with("b exists"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "of somebody else");
        assert!(Target::new(&folder.path().join("none/b"), None).is_err());
    }
}
