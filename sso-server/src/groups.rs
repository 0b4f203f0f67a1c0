//! Groups from a file: who is in which, read again whenever the file changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use serde::Deserialize;
use sso_core::settings::{SettingsError, load};
use sso_proto::Event;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::{Account, Accounts};

/// How often the file is looked at for a change.
const POLL: Duration = Duration::from_secs(1);

/// The file: `version = 1` and a table `[groups]` of group to members, which may be groups.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    groups: BTreeMap<String, Vec<String>>,
}

/// Inode, size and times of change.
type Stamp = Option<(u64, u64, i64, i64, i64)>;

/// The groups in force.
#[derive(Debug)]
pub struct Groups {
    file: Option<PathBuf>,
    members: ArcSwap<Membership>,
    /// Rises after every change of the members.
    generation: AtomicU64,
    /// What the file looked like when it was last read.
    seen: Mutex<Stamp>,
    /// Groups that there were, and are not any more: canonical key and name as it was written.
    missing: watch::Sender<BTreeMap<String, String>>,
}

/// Who is in which group: every account of the file, groups among them, by its number.
#[derive(Debug, Default, PartialEq, Eq)]
struct Membership {
    /// By canonical key.
    numbers: HashMap<Box<str>, u32>,
    named: Vec<Named>,
}

/// An account or group that the file names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    key: Box<str>,
    /// As written where it stands as a group, else where it is named first.
    name: Box<str>,
    /// It stands there as a group, be it an empty one.
    is_group: bool,
    /// The groups that name it.
    direct: Vec<u32>,
    /// Of a group: those it names.
    members: Vec<u32>,
}

impl Groups {
    /// The groups of the file; none without a file.
    ///
    /// # Errors
    /// The file is not usable.
    pub fn load(file: Option<&Path>) -> Result<Arc<Self>, SettingsError> {
        let seen = Mutex::new(file.and_then(stamp));
        let members = file.map(read).transpose()?.unwrap_or_default();
        let file = file.map(Path::to_owned);
        let missing = watch::Sender::default();
        Ok(Arc::new(Self {
            file,
            members: ArcSwap::from_pointee(members),
            generation: AtomicU64::new(0),
            seen,
            missing,
        }))
    }

    /// All groups that the account is in, directly or by way of other groups: canonical keys, and the
    /// names as written.
    #[must_use]
    pub fn of(&self, account: &Account) -> BTreeMap<String, String> {
        self.members.load().all_of(account.key())
    }

    /// All groups that the group with this canonical key is in, as [`Groups::of`] has them.
    #[must_use]
    pub fn of_group(&self, key: &str) -> BTreeMap<String, String> {
        self.members.load().all_of(key)
    }

    /// The number of the groups in force: what was worked out from them holds as long as it is the same,
    /// where it was read before.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether there is a group of this name.
    #[must_use]
    pub fn has(&self, account: &Account) -> bool {
        self.members.load().has(account.key())
    }

    /// The groups that the file had since this program started and has not now: canonical key and
    /// name as it was written. A group that comes back is taken out.
    #[must_use]
    pub fn missing(&self) -> watch::Receiver<BTreeMap<String, String>> {
        self.missing.subscribe()
    }

    /// The accounts among these and among the members of those that are groups, nested ones included:
    /// canonical keys, and the names as written. No group is among them.
    #[must_use]
    pub fn members_of(&self, accounts: &Accounts) -> BTreeMap<String, String> {
        self.members.load().members_of(accounts)
    }

    /// Reads the file again within a second of a change, until `stop`. A file that is not usable is
    /// logged once and leaves the groups as they were.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let Some(file) = &self.file else { return };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
            if self.has_changed(file) {
                self.reload(file);
            }
        }
    }

    fn has_changed(&self, file: &Path) -> bool {
        let now = stamp(file);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *seen, now) != now
    }

    fn reload(&self, file: &Path) {
        match read(file) {
            Ok(members) => {
                tracing::info!(groups = members.names().count(), "groups reloaded");
                let members = Arc::new(members);
                let before = self.members.swap(Arc::clone(&members));
                self.generation.fetch_add(1, Ordering::Release);
                self.note_missing(&before, &members);
            }
            Err(error) => {
                tracing::error!(event = Event::GroupsUnusable.number(), %error, "the groups are not usable, those read before stay in force");
            }
        }
    }
}

impl Groups {
    fn note_missing(&self, before: &Membership, now: &Membership) {
        self.missing.send_if_modified(|missing| {
            let known = missing.clone();
            missing.extend(before.names());
            missing.retain(|key, _| !now.has(key));
            *missing != known
        });
    }
}

impl Membership {
    fn of_key(&self, key: &str) -> Option<&Named> {
        self.at(*self.numbers.get(key)?)
    }

    fn at(&self, number: u32) -> Option<&Named> {
        self.named.get(usize::try_from(number).ok()?)
    }

    fn has(&self, key: &str) -> bool {
        self.of_key(key).is_some_and(|named| named.is_group)
    }

    fn all_of(&self, key: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut open: Vec<_> = self.of_key(key).into_iter().collect();
        while let Some(member) = open.pop() {
            for group in member.direct.iter().filter_map(|group| self.at(*group)) {
                // A group met before is not opened again, so a circle ends.
                if found.insert(group.key.to_string(), group.name.to_string()).is_none() {
                    open.push(group);
                }
            }
        }
        found
    }

    fn members_of(&self, accounts: &Accounts) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut opened = BTreeSet::new();
        let given = accounts.iter().map(|account| (account.key(), account.as_str()));
        let mut open: Vec<(&str, &str)> = given.collect();
        while let Some((key, name)) = open.pop() {
            if !self.has(key) {
                found.entry(key.to_owned()).or_insert_with(|| name.to_owned());
            } else if opened.insert(key) {
                let members = self.of_key(key).into_iter().flat_map(|group| &group.members);
                let members = members.filter_map(|member| self.at(*member));
                open.extend(members.map(|member| (&*member.key, &*member.name)));
            }
        }
        found
    }

    /// The groups: canonical key and name as written.
    fn names(&self) -> impl Iterator<Item = (String, String)> {
        let groups = self.named.iter().filter(|named| named.is_group);
        groups.map(|group| (group.key.to_string(), group.name.to_string()))
    }

    /// The number of an account, which may be new.
    fn number(&mut self, account: &Account) -> Result<u32, &'static str> {
        if let Some(number) = self.numbers.get(account.key()) {
            return Ok(*number);
        }
        let number = u32::try_from(self.named.len()).map_err(|_| "there are too many accounts")?;
        self.numbers.insert(account.key().into(), number);
        let (key, name) = (account.key().into(), account.as_str().into());
        self.named.push(Named { key, name, ..Named::default() });
        Ok(number)
    }

    fn at_mut(&mut self, number: u32) -> Option<&mut Named> {
        self.named.get_mut(usize::try_from(number).ok()?)
    }

    /// Adds a group; `false` where it stands there already.
    fn add_group(&mut self, group: &Account) -> Result<bool, &'static str> {
        let number = self.number(group)?;
        let Some(own) = self.at_mut(number) else { return Ok(false) };
        own.name = group.as_str().into();
        Ok(!std::mem::replace(&mut own.is_group, true))
    }

    fn add_member(&mut self, group: &Account, member: &Account) -> Result<(), &'static str> {
        let (group, member) = (self.number(group)?, self.number(member)?);
        // Groups are named by few, and name many.
        if self.at(member).is_some_and(|member| member.direct.contains(&group)) {
            return Ok(());
        }
        if let Some(member) = self.at_mut(member) {
            member.direct.push(group);
        }
        if let Some(group) = self.at_mut(group) {
            group.members.push(member);
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Membership, SettingsError> {
    let file: File = load(path)?;
    let refused = |group: &str, message: &str| {
        SettingsError::refused(path, format!("groups.'{group}'"), message)
    };
    let account = |group: &str, text: &str| {
        Account::parse(text).map_err(|error| refused(group, &error.to_string()))
    };
    let mut membership = Membership::default();
    for (name, members) in &file.groups {
        let group = account(name, name)?;
        if !membership.add_group(&group).map_err(|why| refused(name, why))? {
            return Err(refused(name, "the group stands there twice in different case"));
        }
        for member in members {
            let member = account(name, member)?;
            membership.add_member(&group, &member).map_err(|why| refused(name, why))?;
        }
    }
    Ok(membership)
}

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec(), file.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const NESTED: &str = r"
version = 1
[groups]
'DEV\All' = ['dev\admins', 'DEV\Loop']
'DEV\Admins' = ['DEV\ann']
'DEV\Loop' = ['DEV\All', 'DEV\carol']
'DEV\Empty' = []
";

    fn groups(text: &str) -> (tempfile::TempDir, Result<Arc<Groups>, String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("groups.toml");
        fs::write(&path, text).unwrap();
        let groups = Groups::load(Some(&path)).map_err(|error| error.to_string());
        (folder, groups)
    }

    fn account(text: &str) -> Account {
        Account::parse(text).unwrap()
    }

    fn of(groups: &Groups, text: &str) -> Vec<String> {
        groups.of(&account(text)).into_keys().collect()
    }

    #[test]
    fn groups_nest_and_circles_are_harmless() {
        let (_folder, groups) = groups(NESTED);
        let groups = groups.unwrap();
        assert_eq!(of(&groups, "dev\\ANN"), ["dev\\admins", "dev\\all", "dev\\loop"]);
        assert_eq!(of(&groups, "DEV\\carol"), ["dev\\all", "dev\\loop"]);
        assert!(of(&groups, "DEV\\bob").is_empty());
        assert!(groups.has(&account("dev\\EMPTY")));
        assert!(!groups.has(&account("DEV\\ann")));
    }

    #[test]
    fn members_are_those_of_nested_groups_too_and_no_groups() {
        let (_folder, groups) = groups(NESTED);
        let groups = groups.unwrap();
        let of = |accounts: &[&str]| {
            let members = groups.members_of(&Accounts::parse(accounts).unwrap());
            members.into_values().collect::<Vec<_>>()
        };
        assert_eq!(of(&["DEV\\All"]), ["DEV\\ann", "DEV\\carol"]);
        assert_eq!(
            of(&["dev\\loop", "DEV\\bob", "DEV\\Empty"]),
            ["DEV\\ann", "DEV\\bob", "DEV\\carol"]
        );
        assert!(of(&[]).is_empty());
    }

    #[test]
    fn bad_files_are_named() {
        for (text, wanted) in [
            ("version = 1\n[groups]\n'DEV\\A' = ['a\\b\\c']\n", "groups.'DEV\\A': "),
            ("version = 1\n[groups]\n'Everyone' = []\n", "groups.'Everyone': "),
            ("version = 1\n[groups]\n'D\\A' = []\n'd\\a' = []\n", "twice"),
            ("version = 1\n[group]\n", "unknown field `group`"),
            ("[groups]\n", "version"),
        ] {
            let (_folder, groups) = groups(text);
            let error = groups.unwrap_err();
            assert!(error.contains(wanted) && error.contains("groups.toml"), "{error}");
        }
    }

    #[tokio::test]
    async fn changes_are_noticed_and_bad_ones_ignored() {
        let (folder, groups) = groups(NESTED);
        let groups = groups.unwrap();
        let stop = CancellationToken::new();
        let watching = tokio::spawn(Arc::clone(&groups).watch(stop.clone()));
        let path = folder.path().join("groups.toml");

        fs::write(&path, "version = 1\n[groups]\n'DEV\\Admins' = [").unwrap();
        let began = Instant::now();
        while *groups.seen.lock().unwrap() != stamp(&path) {
            assert!(began.elapsed() < Duration::from_secs(20), "the change is not noticed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(of(&groups, "DEV\\ann").len(), 3);

        fs::write(&path, "version = 1\n[groups]\n'DEV\\Admins' = ['DEV\\bob']\n").unwrap();
        while of(&groups, "DEV\\bob").is_empty() {
            assert!(began.elapsed() < Duration::from_secs(20), "the change is not noticed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(of(&groups, "DEV\\ann").is_empty());
        let missing = |groups: &Groups| -> Vec<String> {
            groups.missing().borrow().values().cloned().collect()
        };
        assert_eq!(missing(&groups), ["DEV\\All", "DEV\\Empty", "DEV\\Loop"]);

        fs::write(&path, "version = 1\n[groups]\n'dev\\ALL' = []\n").unwrap();
        while groups.has(&account("DEV\\Admins")) {
            assert!(began.elapsed() < Duration::from_secs(20), "the change is not noticed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(missing(&groups), ["DEV\\Admins", "DEV\\Empty", "DEV\\Loop"]);
        stop.cancel();
        watching.await.unwrap();
    }
}
