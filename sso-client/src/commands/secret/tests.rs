//! Command lines, and how the state of the master secret is shown.

use clap::Parser as _;
use prost_types::Timestamp;
use sso_client::v1::{
    BackupStatus, GetSecretStatusResponse, MasterEntry, ResealStatus, SecretGeneration,
    SecretServer,
};

use super::{SecretCommand, status, status_shown};
use crate::cli::{Cli, Command};

fn parsed(line: &str) -> Result<SecretCommand, clap::Error> {
    let line = std::iter::once("sso").chain(["secret"]).chain(line.split(' '));
    let Command::Secret(args) = Cli::try_parse_from(line)?.command else {
        panic!("another command")
    };
    Ok(args.command)
}

#[test]
fn command_lines() {
    for good in [
        "status",
        "--master unix:///m.sock status",
        "status --master https://m:1 -o json",
        "rotate --backup b --password-file - --reminder r --wait --retire --timeout 600",
        "rotate --backup b --officer ada=a.pub --officer bob=b.pub --shares 3/5 --share-folder d",
        "rotate --backup b --leave-behind a,b --leave-behind c --rows-per-second 100",
        "rotate --continue --leave-behind a --wait",
        "backup b",
        "verify b --against-database --officer-key k",
        "verify b --share 1 --share 2",
        "restore b --password-file p",
        "reminder b",
        "retire 1",
        "destroy 1",
        "promote --force --yes",
        "officer-key k",
    ] {
        parsed(good).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    for bad in [
        "rotate",
        "rotate --password-file p",
        "rotate --backup b --continue",
        "rotate --continue --password-file p",
        "rotate --backup b --retire",
        "backup b --shares 3/5",
        "backup b --shares 1/5 --share-folder d",
        "backup b --shares 5/3 --share-folder d",
        "backup b --shares 2/256 --share-folder d",
        "backup b --officer ada",
        "backup b --password secret",
        "verify b --share 1 --officer-key k",
        "destroy one",
        "destroy 1 --yes",
        "retire",
    ] {
        assert!(parsed(bad).is_err(), "{bad}");
    }
    let line = "rotate --backup b --leave-behind a,b --leave-behind c";
    let SecretCommand::Rotate(args) = parsed(line).unwrap() else { panic!("another command") };
    assert_eq!(args.leave_behind, ["a", "b", "c"]);
}

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

fn answer() -> GetSecretStatusResponse {
    let generation = |generation, state, rows| SecretGeneration {
        generation,
        state,
        rows,
        fingerprint: format!("f{generation}"),
        backed_up_at: if generation == 1 { at(5) } else { None },
        ..Default::default()
    };
    GetSecretStatusResponse {
        role: 1,
        name: "sso-master".into(),
        generations: vec![generation(1, 4, Some(1200)), generation(2, 3, None)],
        masters: vec![MasterEntry { name: "m".into(), self_: true, role: 2, ..Default::default() }],
        servers: vec![
            SecretServer { name: "a".into(), live: true, left_behind: true, ..Default::default() },
            SecretServer { name: "b".into(), live: true, revoked: true, ..Default::default() },
        ],
        backup: Some(BackupStatus { verified_at: at(1000), ..Default::default() }),
        reseal: Some(ResealStatus {
            working: true,
            rows_left: 1200,
            rows_per_second: 100.0,
            failed_rows: 2,
            began_at_ms: 1000,
            ..Default::default()
        }),
        reseal_server: "a".into(),
        master_time: at(1000 + 3 * 86_400),
        ..Default::default()
    }
}

#[test]
fn the_status_as_a_document() {
    let json = serde_json::to_value(status::document(answer())).unwrap();
    assert_eq!(json["role"], "primary");
    assert_eq!(json["generations"][0]["state"], "draining");
    assert_eq!(json["generations"][0]["rows"], 1200);
    assert_eq!(json["generations"][1]["rows"], serde_json::Value::Null);
    assert_eq!(json["masters"][0]["self"], true);
    assert_eq!(json["servers"][1]["revoked"], true);
    assert_eq!(json["backup"]["age_seconds"], 3 * 86_400);
    assert_eq!(json["backup"]["warning"], serde_json::Value::Null);
    assert_eq!(json["reseal"]["seconds_left"], 12);
    assert_eq!(json["reseal"]["began_at"], "1970-01-01T00:00:01Z");
    assert_eq!(json["reseal"]["finished_at"], serde_json::Value::Null);
}

#[test]
fn the_status_for_people() {
    let document = status::document(answer());
    let rows = status_shown::generations(&document);
    assert_eq!(rows[0][..3], ["1", "draining", "f1"]);
    assert_eq!((rows[1][5].as_str(), rows[1][6].as_str()), ("never", "-"));
    assert_eq!(status_shown::master(&document.masters[0])[0], "m (this one)");
    assert_eq!(status_shown::server(&document.servers[0])[1], "live, left behind");
    assert_eq!(status_shown::server(&document.servers[1])[1], "revoked");
    assert!(status_shown::backup(&document.backup).ends_with("3 d ago"));
    assert_eq!(
        status_shown::reseal(&document.reseal),
        "1200 rows left, by a, 100 a second, 12 s to go, 2 do not open"
    );
    let empty = status::document(GetSecretStatusResponse::default());
    assert_eq!(status_shown::reseal(&empty.reseal), "-");
    assert!(status_shown::backup(&empty.backup).starts_with("none"));
}
