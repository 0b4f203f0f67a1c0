//! Mappings in files: create, delete, export.

use std::path::Path;

use serde::Serialize;
use sso_client::{
    MappingFilter, NewMapping,
    v1::Mapping,
    xml::{MAX_MAPPINGS_BYTES, MappingDefinition, Position, parse_mappings, write_mappings},
};

use super::{
    super::{Service, confirm, read_file_of},
    MappingDocument, MappingsDocument, all,
    args::{CreateArgs, DeleteArgs, ExportArgs},
    batch::{Batch, Verb},
};
use crate::{failure::Failure, output::Output};

/// Creates every mapping of the file; those that are refused are reported.
pub(super) async fn create(
    file: &Path,
    args: &CreateArgs,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let (positions, mappings) = read(file, args.enable)?;
    let batch = Batch {
        verb: Verb::Create,
        dry_run: args.dry_run,
        mappings: &mappings,
        positions: &positions,
    };
    batch.run(&service.connect_for_batches()?.mappings(), output).await
}

/// Deletes every mapping of the file; those that are refused are reported.
pub(super) async fn delete(
    file: &Path,
    args: &DeleteArgs,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let (positions, mappings) = read(file, false)?;
    let question = format!("Delete the {} mappings of the file?", mappings.len());
    confirm(&question, args.yes || args.dry_run || mappings.is_empty())?;
    let batch = Batch {
        verb: Verb::Delete,
        dry_run: args.dry_run,
        mappings: &mappings,
        positions: &positions,
    };
    batch.run(&service.connect_for_batches()?.mappings(), output).await
}

/// The mappings of a file, and where each stands in it.
pub(in crate::commands) fn read(
    file: &Path,
    enable: bool,
) -> Result<(Vec<Position>, Vec<NewMapping>), Failure> {
    let bytes = read_file_of(file, MAX_MAPPINGS_BYTES)?;
    let definitions = parse_mappings(&bytes).map_err(|error| Failure::xml(file, &error))?;
    Ok(definitions
        .into_iter()
        .map(|definition| {
            let mapping = NewMapping {
                application: definition.application,
                account: definition.account,
                external_user: definition.external_user,
                credentials: None,
                enable,
            };
            (definition.position, mapping)
        })
        .unzip())
}

#[derive(Debug, Serialize)]
struct ExportDocument {
    file: String,
    mappings: usize,
}

/// Writes mappings as XML, to standard output or a file; with JSON output and no file as JSON.
pub(super) async fn export(
    args: &ExportArgs,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let filter = MappingFilter {
        application: args.application.clone(),
        orphaned: args.orphaned,
        ..MappingFilter::default()
    };
    let mappings = all(&service.connect()?.mappings(), &filter, output).await?;
    let Some(file) = &args.file else {
        if output.is_json() {
            let mappings = mappings.into_iter().map(MappingDocument::from).collect();
            return output.document(&MappingsDocument { mappings }, |_| Ok(()));
        }
        return output.raw(&as_xml(&mappings.iter().map(definition).collect::<Vec<_>>())?);
    };
    write(file, &mappings.iter().map(definition).collect::<Vec<_>>())?;
    let document = ExportDocument { file: file.display().to_string(), mappings: mappings.len() };
    output.document(&document, |output| {
        output.note(&format!("wrote {} mappings to {}", document.mappings, document.file));
        Ok(())
    })
}

/// Writes a file of mappings; an existing one is replaced.
pub(super) fn write(file: &Path, mappings: &[MappingDefinition]) -> Result<(), Failure> {
    std::fs::write(file, as_xml(mappings)?)
        .map_err(|error| Failure::io(file.display().to_string(), error))
}

fn definition(mapping: &Mapping) -> MappingDefinition {
    MappingDefinition {
        position: Position::START,
        account: mapping.account.clone(),
        application: mapping.application.clone(),
        external_user: mapping.external_user.clone(),
    }
}

fn as_xml(mappings: &[MappingDefinition]) -> Result<String, Failure> {
    write_mappings(mappings)
        .map_err(|error| Failure::refused(error.to_string(), "change the text, then try again"))
}
