//! Small disks that can be filled: a file system in memory, mounted at a folder.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

const FILLER: &str = "filler";

/// A mounted file system. Unmounted with the value.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts one of so many mebibytes at a folder, which is made where it is missing; for this user
    /// alone.
    ///
    /// `None`, with a notice, where that is not possible: it takes root and a kernel that lets root
    /// mount. Panics then where `SSO_REQUIRE_FAULTS` is set to 1.
    #[must_use]
    pub fn mount(folder: &Path, mebibytes: u32) -> Option<Self> {
        Self::mount_for(folder, mebibytes, (0, 0))
    }

    /// The same for another user and group alone.
    ///
    /// `None`, with a notice, where that is not possible: it takes root and a kernel that lets root
    /// mount. Panics then where `SSO_REQUIRE_FAULTS` is set to 1.
    #[must_use]
    pub fn mount_for(folder: &Path, mebibytes: u32, owner: (u32, u32)) -> Option<Self> {
        fs::create_dir_all(folder).expect("a folder");
        let (user, group) = owner;
        let options = format!("size={mebibytes}m,mode=0700,uid={user},gid={group}");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder)
            .output();
        match done {
            Ok(done) if done.status.success() => Some(Self { folder: folder.to_owned() }),
            Ok(done) => {
                crate::left_out(
                    "FAULTS",
                    &format!("mount: {}", String::from_utf8_lossy(&done.stderr)),
                );
                None
            }
            Err(error) => {
                crate::left_out("FAULTS", &format!("mount: {error}"));
                None
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves no byte.
    ///
    /// # Panics
    /// When it cannot be written for another reason.
    pub fn fill(&self) {
        let mut file = File::create(self.folder.join(FILLER)).expect("a file");
        let (mut piece, bytes) = (64 * 1024, vec![0; 64 * 1024]);
        while piece > 0 {
            match file.write(bytes.get(..piece).unwrap_or_default()) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => piece /= 2,
                Err(error) => panic!("{}: {error}", self.folder.display()),
            }
        }
    }

    /// Gives the room back that [`Disk::fill`] took.
    pub fn free(&self) {
        let _ = fs::remove_file(self.folder.join(FILLER));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Files in it may be open still.
        let _ = Command::new("umount").arg("--lazy").arg(&self.folder).output();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_until_it_is_freed() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("disk");
        let Some(disk) = Disk::mount(&place, 1) else { return };
        let file = disk.folder().join("file");
        fs::write(&file, vec![1; 10_000]).unwrap();
        disk.fill();
        let refused = fs::write(disk.folder().join("other"), vec![1; 10_000]).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
        disk.free();
        fs::write(disk.folder().join("other"), vec![1; 10_000]).unwrap();
        drop(disk);
        assert!(!file.exists());
    }
}
