//! `sso secret verify`: opens a backup, and every row of the database with its keys.

use serde::Serialize;
use sso_client::v1::{CheckSealedRowsResponse, VerifyBackupResponse};
use sso_core::exit::Exit;

use super::{Master, args::VerifyArgs, document::Document, numbers, wait::Now};
use crate::{
    commands::shown::{time, time_cell, yes},
    failure::Failure,
    output::Output,
};

#[derive(Debug, Serialize)]
struct VerifiedDocument {
    keystore_id: String,
    created_at: Option<String>,
    tool: String,
    active_generation: u32,
    generations: Vec<GenerationDocument>,
    missing: Vec<u32>,
    database: Option<RowsDocument>,
}

#[derive(Debug, Serialize)]
struct GenerationDocument {
    generation: u32,
    fingerprint: String,
    in_keystore: bool,
}

#[derive(Debug, Serialize)]
struct RowsDocument {
    rows: u64,
    opened: u64,
    not_opened: u64,
    failed: Vec<String>,
}

pub(super) async fn run(
    args: VerifyArgs,
    master: &Master<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let document = Document::read(&args.file)?;
    let opener = args.opener.read(&document, output)?;
    let secret = master.connect()?;
    let (verified, rows) = match args.against_database {
        false => (secret.verify(&document.text, &opener, &[]).await?, None),
        true => {
            let system = master.server()?.system();
            let begun = system.begin_sealed_rows_check().await?;
            let mut verified = secret.verify(&document.text, &opener, &begun.recipient_key).await?;
            let sealed = std::mem::take(&mut verified.sealed);
            let mut shown = Shown::new(output);
            let last = system
                .check_sealed_rows(&begun.check, sealed, |answer| shown.hear(answer, output))
                .await;
            shown.bar.finish_and_clear();
            (verified, Some(rows_document(&last?, shown.failed)))
        }
    };
    report(&verified, rows, output)
}

/// What came so far.
struct Shown {
    bar: indicatif::ProgressBar,
    failed: Vec<String>,
    now: Now,
}

impl Shown {
    fn new(output: &Output) -> Self {
        let bar = output.progress(usize::MAX, "rows opened");
        Self { bar, failed: Vec::new(), now: Now::default() }
    }

    fn hear(&mut self, answer: &CheckSealedRowsResponse, output: &Output) {
        let done = answer.rows_opened.saturating_add(answer.rows_failed);
        self.bar.set_length(answer.rows_total);
        self.bar.set_position(done);
        self.failed.extend(answer.failed.iter().cloned());
        if self.bar.is_hidden() && self.now.and_then() {
            output.note(&format!("{done} of {} rows", answer.rows_total));
        }
    }
}

fn rows_document(last: &CheckSealedRowsResponse, failed: Vec<String>) -> RowsDocument {
    RowsDocument {
        rows: last.rows_total,
        opened: last.rows_opened,
        not_opened: last.rows_failed,
        failed,
    }
}

fn report(
    verified: &VerifyBackupResponse,
    database: Option<RowsDocument>,
    output: &Output,
) -> Result<(), Failure> {
    let generations = verified.generations.iter().map(|one| GenerationDocument {
        generation: one.generation,
        fingerprint: one.fingerprint.clone(),
        in_keystore: one.in_keystore,
    });
    let document = VerifiedDocument {
        keystore_id: verified.keystore_id.clone(),
        created_at: time(verified.created_at.as_ref()),
        tool: verified.tool.clone(),
        active_generation: verified.active_generation,
        generations: generations.collect(),
        missing: verified.missing.clone(),
        database,
    };
    output.document(&document, |output| {
        let mut pairs = vec![
            ("keystore", document.keystore_id.clone()),
            ("made", time_cell(verified.created_at.as_ref())),
            ("by", document.tool.clone()),
            ("missing", numbers(&document.missing)),
        ];
        if let Some(rows) = &document.database {
            let text = format!("{} of {} opened", rows.opened, rows.rows);
            pairs.push(("rows of the database", text));
        }
        output.pairs(pairs)?;
        output.line("")?;
        let rows = document.generations.iter().map(|one| {
            let active = one.generation == document.active_generation;
            vec![
                one.generation.to_string(),
                one.fingerprint.clone(),
                yes(active),
                yes(one.in_keystore),
            ]
        });
        output.table(&["GENERATION", "FINGERPRINT", "ACTIVE THEN", "IN THE KEYSTORE"], rows)
    })?;
    if !document.missing.is_empty() {
        output.warn(
            None,
            &format!(
                "the backup lacks generation {} of the keystore: make a new one with sso secret backup",
                numbers(&document.missing)
            ),
        );
    }
    match &document.database {
        Some(rows) if rows.not_opened > 0 => {
            if !output.is_json() {
                for name in &rows.failed {
                    output.warn(None, &format!("does not open: {name}"));
                }
            }
            output.warn(None, &format!("{} rows do not open with this backup", rows.not_opened));
            Err(Failure::Reported(Exit::Refused.code()))
        }
        Some(_) | None => Ok(()),
    }
}
