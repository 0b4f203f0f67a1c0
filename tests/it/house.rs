//! The rules of the house: which room may use what, checked on the sources.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use sso_server::storage::SealedTable;

/// Longest file that two people can still share.
const LONGEST_FILE: usize = 600;

/// Rooms by floor. A room imports from its own floor and those below.
type Floors = &'static [(u8, &'static [&'static str])];

const SERVER_FLOORS: Floors = &[
    (6, &["main", "lib", "server", "settings"]),
    (5, &["api", "house"]),
    (
        4,
        &[
            "applications",
            "config_store",
            "system",
            "audit_trail",
            "lookup",
            "mappings",
            "explain",
            "gates",
            "principals",
            "sealed_rows",
            "tickets",
            "host_initiated",
        ],
    ),
    (
        3,
        &[
            "access",
            "announce",
            "assertion",
            "audit",
            "vault",
            "changes",
            "identity",
            "groups",
            "cache",
            "generations",
            "reseal",
        ],
    ),
    (2, &["master", "storage"]),
    (1, &["model", "error"]),
];

const MASTER_FLOORS: Floors = &[
    (7, &["main", "lib", "serve", "door"]),
    (6, &["distribution", "rotation", "standby", "secret", "join"]),
    (5, &["house"]),
    (4, &["announce", "backup", "protectors", "roster", "peers", "transfer", "init", "restore"]),
    (3, &["custody", "stanzas"]),
    (2, &["keystore"]),
    (1, &["file", "settings", "error"]),
];

/// Has the errors of every room, so that the program ends with one of them.
const ALL_ERRORS: &str = "sso-master/src/error.rs";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        match path.is_dir() {
            true if name != "target" && !name.starts_with('.') => walk(&path, found),
            true => {}
            false => found.push(path),
        }
    }
}

pub(crate) struct Source {
    /// Below the root, with `/`.
    path: String,
    pub(crate) text: String,
}

impl Source {
    /// Lines of code with their numbers: no comments, nothing from the tests at the end on.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let next = self.text.lines().skip(1).chain([""]);
        (1..)
            .zip(self.text.lines().zip(next))
            .take_while(|(_, (line, next))| {
                // Tests in a file of their own are only named here, above the code.
                !line.starts_with("#[cfg(test)]")
                    || !next.starts_with("mod ")
                    || !next.ends_with('{')
            })
            .map(|(number, (line, _))| (number, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Whether the test of this path, like `it::house::files_stay_short`, is here.
    pub(crate) fn has_test(&self, test: &str) -> bool {
        let (rooms, name) = test.rsplit_once("::").unwrap_or(("", test));
        let path = self.path.replace('-', "_");
        let mut parts = path.split(['/', '.']);
        rooms.split("::").all(|room| room.is_empty() || parts.any(|part| part == room))
            && self.tests(name)
    }

    /// Whether a function of this name is here with the attribute of a test above it.
    fn tests(&self, name: &str) -> bool {
        let function = format!("fn {name}(");
        let lines: Vec<_> = self.text.lines().map(str::trim).collect();
        let is_test =
            |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let places = (0..lines.len()).filter(|&place| lines[place].contains(&function));
        places.into_iter().any(|place| {
            let above = lines[..place].iter().rev();
            above.take_while(|line| !line.is_empty() && !line.ends_with(['}', '{'])).any(is_test)
        })
    }

    /// The top-level room of sso-server that the file is or belongs to.
    fn server_room(&self) -> Option<&str> {
        self.room("sso-server/src/")
    }

    fn room(&self, part: &str) -> Option<&str> {
        let inside = self.path.strip_prefix(part)?;
        inside.split('/').next()?.split('.').next()
    }
}

/// Every Rust file whose path starts with the prefix.
pub(crate) fn sources(prefix: &str) -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    let mut sources: Vec<_> = paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| {
            let below = path.strip_prefix(&root).ok()?.to_str()?.to_owned();
            let text = fs::read_to_string(&path).ok()?;
            below.starts_with(prefix).then_some(Source { path: below, text })
        })
        .collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!sources.is_empty(), "no sources below {prefix}");
    sources
}

/// Fails with every line of code that contains one of the words outside of the allowed places.
fn only(prefix: &str, words: &[&str], allowed: impl Fn(&Source) -> bool) {
    let mut found = Vec::new();
    for source in sources(prefix).into_iter().filter(|source| !allowed(source)) {
        for (number, line) in source.code() {
            if words.iter().any(|word| contains_word(line, word)) {
                found.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{words:?} outside of its room:\n{}", found.join("\n"));
}

fn contains_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

#[test]
fn only_storage_speaks_sql() {
    only("sso-server/src/", &["sqlx"], |source| source.server_room() == Some("storage"));
}

#[test]
fn only_the_edges_speak_grpc() {
    only("sso-server/src/", &["tonic"], |source| {
        matches!(source.server_room(), Some("api" | "master" | "server"))
    });
}

#[test]
fn only_one_room_encrypts() {
    for part in
        ["proto/", "sso-core/", "sso-protector/", "sso-master/", "sso-server/", "sso-client/"]
    {
        only(part, &["aes_gcm", "AES_256_GCM"], |source| source.path == "sso-core/src/seal.rs");
    }
}

/// What the programs are made of.
const PARTS: [&str; 6] = [
    "sso-core/src/",
    "sso-protector/src/",
    "sso-master/src/",
    "sso-server/src/",
    "sso-client/src/",
    "examples/payment-gateway/src/",
];

#[test]
fn only_the_clock_reads_the_time() {
    // Deadlines of network calls are the matter of tokio's timers.
    let words = ["SystemTime", "std::time::Instant", "now_utc", "now_local", "UnixTime::now"];
    for part in PARTS {
        only(part, &words, |source| source.path == "sso-core/src/clock.rs");
    }
}

#[test]
fn only_settings_rooms_read_the_environment() {
    for part in PARTS {
        only(part, &["env::var", "env::var_os", "env::vars", "env::vars_os"], |source| {
            let handed_on = source.path == "sso-client/src/commands/dev.rs";
            handed_on || source.path.ends_with("settings.rs") || source.path.ends_with("profile.rs")
        });
    }
}

#[test]
fn nothing_imports_upward() {
    let mut found = Vec::new();
    for (part, floors) in [("sso-server/src/", SERVER_FLOORS), ("sso-master/src/", MASTER_FLOORS)] {
        let floor = |room: &str| {
            floors.iter().find(|(_, rooms)| rooms.contains(&room)).map(|(floor, _)| *floor)
        };
        for source in sources(part) {
            let room = source.room(part).expect("a room");
            let own =
                floor(room).unwrap_or_else(|| panic!("{}: on which floor is it?", source.path));
            if source.path == ALL_ERRORS {
                continue;
            }
            let code: Vec<_> = source.code().map(|(_, line)| line).collect();
            for used in rooms_used(&code.join("\n")) {
                if floor(&used).is_some_and(|used| used > own) {
                    found.push(format!("{} uses {used}", source.path));
                }
            }
        }
    }
    assert!(found.is_empty(), "imports from a higher floor:\n{}", found.join("\n"));
}

/// The first name of every path behind `crate::`, those of a group in braces included.
fn rooms_used(code: &str) -> Vec<String> {
    let room = |path: &str| {
        let end = |c: char| !(c.is_alphanumeric() || c == '_');
        path.trim_start().split(end).next().unwrap_or_default().to_owned()
    };
    let mut rooms = Vec::new();
    for path in code.split("crate::").skip(1) {
        let Some(group) = path.strip_prefix('{') else {
            rooms.push(room(path));
            continue;
        };
        let (mut depth, mut start) = (0_usize, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    rooms.push(room(&group[start..at]));
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    rooms
}

#[test]
fn the_rooms_of_grouped_imports_are_seen() {
    let code = "use crate::{\n    api::{self, EntryLayer},\n    error::Error,\n};\nfn f() -> crate::model::Page {";
    let used: Vec<_> = rooms_used(code).into_iter().filter(|room| !room.is_empty()).collect();
    assert_eq!(used, ["api", "error", "model"]);
}

#[test]
fn programs_do_not_import_one_another() {
    only("sso-core/src/", &["sso_proto", "sso_master", "sso_server", "sso_client"], |_| false);
    only("proto/src/", &["sso_core", "sso_master", "sso_server", "sso_client"], |_| false);
    only("sso-master/src/", &["sso_server", "sso_client"], |_| false);
    only("sso-server/src/", &["sso_master", "sso_client"], |_| false);
    only("sso-client/src/", &["sso_master", "sso_server"], |_| false);
    let outside = ["sso_proto", "sso_master", "sso_server"];
    only("examples/payment-gateway/src/", &outside, |_| false);
    only("examples/payment-gateway/src/gateway", &["sso_client"], |_| false);
    only("sso-master/src/", &["sqlx"], |_| false);
    let others = ["sso_proto", "sso_master", "sso_server", "sso_client", "sqlx", "tonic"];
    only("sso-protector/src/", &others, |_| false);
}

#[test]
fn no_feature_changes_a_check() {
    // The one feature adds a protector; nothing that is checked depends on it.
    for part in ["proto/src/", "sso-core/src/", "sso-server/src/", "sso-client/src/"] {
        only(part, &["feature"], |_| false);
    }
    only("sso-master/src/", &["feature"], |_| false);
    only("sso-protector/src/", &["feature"], |source| {
        source.path == "sso-protector/src/os_keyring.rs"
    });
}

/// A generator within a process has a state, which a copy of a virtual machine repeats
/// (threat-model.md, case 19). Every random number comes from the operating system, for each use
/// anew.
#[test]
fn only_the_operating_system_gives_random_numbers() {
    let generators =
        ["StdRng", "SmallRng", "ThreadRng", "rand::rng", "rand::random", "seed_from_u64"];
    for part in [
        "sso-core/src/",
        "sso-protector/src/",
        "sso-master/src/",
        "sso-server/src/",
        "sso-client/src/",
        "examples/payment-gateway/src/",
    ] {
        // The shares of one key, seeded anew for each; pauses between attempts.
        let allowed = ["sso-master/src/backup/shares.rs", "sso-client/src/retry.rs"];
        only(part, &generators, |source| allowed.contains(&&*source.path));
    }
}

/// Files are written and read by the command line, on the side of the caller (threat-model.md,
/// case 21).
#[test]
fn no_request_names_a_file() {
    use prost::Message as _;
    let set = prost_types::FileDescriptorSet::decode(sso_proto::FILE_DESCRIPTOR_SET);
    let mut seen = 0;
    let mut found = Vec::new();
    for file in set.expect("descriptors").file.iter().filter(|file| file.package() == "sso.v1") {
        for message in file.message_type.iter().filter(|it| it.name().ends_with("Request")) {
            for field in &message.field {
                seen += 1;
                let names_file = field.name().split('_').any(|word| {
                    ["file", "path", "folder", "directory", "dir", "filename"].contains(&word)
                });
                if names_file {
                    found.push(format!("{}.{}", message.name(), field.name()));
                }
            }
        }
    }
    assert!(seen > 100, "{seen} fields");
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn files_stay_short() {
    let long: Vec<_> = sources("")
        .into_iter()
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, _)| *lines > LONGEST_FILE)
        .collect();
    assert!(long.is_empty(), "longer than {LONGEST_FILE} lines: {long:?}");
}

#[test]
fn no_name_admits_everything() {
    let banned = ["common", "util", "utils", "helper", "helpers", "manager", "misc"];
    let named: Vec<_> = sources("")
        .into_iter()
        .map(|source| source.path)
        .filter(|path| path.split(['/', '.', '-']).any(|part| banned.contains(&part)))
        .collect();
    assert!(named.is_empty(), "{named:?}");
}

#[test]
fn no_test_is_skipped_by_attribute() {
    let attribute = ["#[", "ignore"].concat();
    let ignored: Vec<_> = sources("")
        .into_iter()
        .filter(|source| source.text.contains(&attribute))
        .map(|source| source.path)
        .collect();
    assert!(ignored.is_empty(), "{ignored:?}");
}

#[test]
fn every_migration_exists_for_both_databases() {
    let names = |database: &str| -> BTreeSet<String> {
        let folder = root().join("migrations").join(database);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        entries
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect()
    };
    let (sqlite, postgres) = (names("sqlite"), names("postgres"));
    assert_eq!(sqlite, postgres);
    assert!(!sqlite.is_empty());
}

/// Columns of bytes that are not sealed under the master secret: table, column and why.
const NOT_SEALED: &[(&str, &str, &str)] =
    &[("audit_batches", "records", "audit records, which hold no secret")];

/// A sealed column that is not in `SealedTable` would be forgotten by a rotation.
#[test]
fn every_sealed_column_is_sealed_again_by_a_rotation() {
    for database in ["sqlite", "postgres"] {
        let columns = columns(database);
        let bytes = columns.iter().filter(|(_, column, kind)| {
            ["BLOB", "BYTEA"].contains(&&**kind) || column.contains("sealed")
        });
        let named = |(table, column, _): &(String, String, String)| (table.clone(), column.clone());
        let mut found: BTreeSet<_> = bytes.map(named).collect();
        for (table, column, why) in NOT_SEALED {
            let there = found.remove(&((*table).to_owned(), (*column).to_owned()));
            assert!(there, "{database}: {table}.{column} ({why}) is no column of bytes any more");
        }
        let sealed = SealedTable::ALL.map(|table| (table.as_str().to_owned(), "sealed".to_owned()));
        assert_eq!(
            found,
            BTreeSet::from(sealed),
            "{database}: a sealed column needs a variant of SealedTable, any other one of bytes a \
             row in NOT_SEALED"
        );
        for table in SealedTable::ALL.map(SealedTable::as_str) {
            let counted = |it: &(String, String, String)| it.0 == table && it.1 == "generation";
            assert!(
                columns.iter().any(counted),
                "{database}: {table} has no generation to count by"
            );
        }
    }
}

/// Table, column and type of every column that a migration makes.
fn columns(database: &str) -> Vec<(String, String, String)> {
    let mut paths = Vec::new();
    walk(&root().join("migrations").join(database), &mut paths);
    let texts = paths.iter().map(|path| fs::read_to_string(path).expect("a migration"));
    texts.flat_map(|text| columns_made(&text)).collect()
}

fn columns_made(migration: &str) -> Vec<(String, String, String)> {
    let code = migration.lines().map(|line| line.split("--").next().unwrap_or_default());
    let code = code.collect::<Vec<_>>().join("\n");
    let mut made = Vec::new();
    for statement in code.split(';') {
        let split = |c: char| c.is_whitespace() || "(),\"".contains(c);
        let words: Vec<_> = statement.split(split).filter(|word| !word.is_empty()).collect();
        let skip = ["IF", "NOT", "EXISTS", "ONLY"];
        let table = match &*words {
            ["CREATE" | "ALTER", "TABLE", rest @ ..] => rest.iter().find(|it| !skip.contains(it)),
            _ => None,
        };
        let Some(table) = table else { continue };
        let kinds = ["BLOB", "BYTEA", "TEXT", "INTEGER", "BIGINT"];
        for pair in words.windows(2) {
            if kinds.contains(&pair[1]) {
                made.push(((*table).to_owned(), pair[0].to_owned(), pair[1].to_owned()));
            }
        }
    }
    made
}

#[test]
fn columns_are_seen_in_every_migration() {
    let text = "-- BLOB\nCREATE TABLE a (\n    id TEXT NOT NULL, -- x BLOB\n    b BLOB\n) STRICT;\n\
                ALTER TABLE c ADD COLUMN d BYTEA;\nCREATE INDEX e ON a (b);";
    let made = columns_made(text);
    let made: Vec<_> = made.iter().map(|(t, c, k)| (&**t, &**c, &**k)).collect();
    assert_eq!(made, [("a", "id", "TEXT"), ("a", "b", "BLOB"), ("c", "d", "BYTEA")]);
}

#[test]
fn every_crate_keeps_the_lints() {
    for member in [
        "proto",
        "sso-core",
        "sso-protector",
        "sso-master",
        "sso-server",
        "sso-client",
        "examples/payment-gateway",
        "tests",
    ] {
        let manifest =
            fs::read_to_string(root().join(member).join("Cargo.toml")).expect("manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{member}");
    }
}
