//! `sso secret restore`: the generations of a backup that the keystore lacks.

use serde::Serialize;

use super::{Master, args::RestoreArgs, document::Document, numbers};
use crate::{commands::shown::or_dash, failure::Failure, output::Output};

#[derive(Debug, Serialize)]
struct RestoredDocument {
    generations: Vec<u32>,
    kept_aside: String,
}

pub(super) async fn run(
    args: RestoreArgs,
    master: &Master<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let document = Document::read(&args.file)?;
    let opener = args.opener.read(&document, output)?;
    let restored = master.connect()?.restore(&document.text, &opener).await?;
    let document =
        RestoredDocument { generations: restored.generations, kept_aside: restored.kept_aside };
    output.document(&document, |output| {
        output.pairs(vec![
            ("restored", numbers(&document.generations)),
            ("keystore of before", or_dash(&document.kept_aside)),
        ])
    })
}
