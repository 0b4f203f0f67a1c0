//! `sso secret status` for people: tables.

use super::{
    status::{BackupDocument, MasterDocument, ResealDocument, SecretDocument, ServerDocument},
    wait::duration,
};
use crate::{
    commands::{
        shown::{or_dash, yes},
        tls_shown,
    },
    failure::Failure,
    output::Output,
};

pub(super) fn show(document: &SecretDocument, output: &Output) -> Result<(), Failure> {
    let mut pairs = vec![
        ("master", format!("{}, {}", document.name, document.role)),
        ("keystore", document.keystore_id.clone()),
        ("epoch", document.epoch.to_string()),
        ("version", document.version.to_string()),
        ("waits for", or_dash(&document.waiting_for.join("; "))),
        ("backup", backup(&document.backup)),
        ("scheduled backups", scheduled(&document.backup)),
        ("sealing again", reseal(&document.reseal)),
        ("rows counted", at(&document.rows_counted_at)),
    ];
    pairs.extend(document.tls.iter().flat_map(tls_shown::pairs));
    output.pairs(pairs)?;
    output.line("")?;
    let header =
        ["GENERATION", "STATE", "FINGERPRINT", "CREATED", "ACTIVATED", "BACKED UP", "ROWS"];
    output.table(&header, generations(document))?;
    output.line("")?;
    let header = ["MASTER", "ROLE", "EPOCH", "VERSION", "UP TO DATE", "LAST HEARD", "LAST ERROR"];
    output.table(&header, document.masters.iter().map(master))?;
    output.line("")?;
    let header =
        ["SERVER", "STATE", "VERSION", "UP TO DATE", "READS UNTIL", "WRITES UNTIL", "PROGRAM"];
    output.table(&header, document.servers.iter().map(server))
}

fn at(time: &Option<String>) -> String {
    or_dash(time.as_deref().unwrap_or_default())
}

pub(super) fn generations(document: &SecretDocument) -> Vec<Vec<String>> {
    let row = |one: &super::status::GenerationDocument| {
        vec![
            one.generation.to_string(),
            one.state.to_owned(),
            one.fingerprint.clone(),
            at(&one.created_at),
            at(&one.activated_at),
            one.backed_up_at.clone().unwrap_or_else(|| "never".to_owned()),
            one.rows.map_or_else(|| "-".to_owned(), |rows| rows.to_string()),
        ]
    };
    document.generations.iter().map(row).collect()
}

pub(super) fn master(one: &MasterDocument) -> Vec<String> {
    vec![
        if one.own { format!("{} (this one)", one.name) } else { one.name.clone() },
        one.role.to_owned(),
        one.epoch.to_string(),
        one.version.to_string(),
        yes(one.up_to_date),
        if one.own { "-".to_owned() } else { at(&one.last_heard_at) },
        at(&one.last_error),
    ]
}

pub(super) fn server(one: &ServerDocument) -> Vec<String> {
    let mut state = match (one.revoked, one.live) {
        (true, _) => "revoked",
        (false, true) => "live",
        (false, false) => "away",
    }
    .to_owned();
    if one.left_behind {
        state.push_str(", left behind");
    }
    vec![
        one.name.clone(),
        state,
        one.version.to_string(),
        yes(one.up_to_date),
        at(&one.read_lease_until),
        at(&one.write_lease_until),
        or_dash(&one.program_version),
    ]
}

pub(super) fn backup(backup: &BackupDocument) -> String {
    let age = backup.age_seconds.and_then(|age| u64::try_from(age).ok());
    match (&backup.verified_at, age) {
        (None, _) => "none that has every generation was opened".to_owned(),
        (Some(at), None) => format!("opened {at}"),
        (Some(at), Some(age)) => format!("opened {at}, {} ago", duration(age)),
    }
}

fn scheduled(backup: &BackupDocument) -> String {
    let mut words = Vec::new();
    if let Some(last) = &backup.scheduled_last_at {
        words.push(format!("last {last}"));
    }
    if let Some(next) = &backup.scheduled_next_at {
        words.push(format!("next {next}"));
    }
    if let Some(error) = &backup.scheduled_error {
        words.push(format!("failed: {error}"));
    }
    or_dash(&words.join(", "))
}

pub(super) fn reseal(reseal: &ResealDocument) -> String {
    let Some(server) = &reseal.server else { return "-".to_owned() };
    let mut text = match (reseal.working, reseal.rows_left) {
        (_, 0) => format!("done, last by {server}"),
        (true, left) => format!("{left} rows left, by {server}"),
        (false, left) => format!("{left} rows left, last by {server}"),
    };
    if reseal.rows_left > 0 && reseal.rows_per_second > 0.0 {
        text.push_str(&format!(", {:.0} a second", reseal.rows_per_second));
    }
    if let Some(seconds) = reseal.seconds_left {
        text.push_str(&format!(", {} to go", duration(seconds)));
    }
    if reseal.failed_rows > 0 {
        text.push_str(&format!(", {} do not open", reseal.failed_rows));
    }
    if let Some(what) = &reseal.waiting_for {
        text.push_str(&format!(", waits for {what}"));
    }
    text
}
