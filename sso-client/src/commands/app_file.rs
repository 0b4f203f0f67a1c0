//! Applications in files: create, update, export.

mod definition;
mod request;

use std::path::Path;

use serde::Serialize;
use sso_client::{
    ApplicationFilter, Applications, ClientError, Refusal,
    v1::{Application, Warning},
    xml::{ApplicationDefinition, parse_applications},
};
use sso_core::exit::Exit;

use self::{
    definition::as_xml,
    request::{Request, prepare},
};
use super::{
    Service,
    app::{ApplicationDocument, ApplicationsDocument, ExportArgs, report},
    read_file,
};
use crate::{failure::Failure, output::Output};

pub(crate) use self::{definition::flags, request::Verb};

#[derive(Debug, Serialize)]
struct ResultsDocument {
    applications: Vec<ResultDocument>,
}

#[derive(Debug, Serialize)]
struct ResultDocument {
    name: String,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// Creates every application of the file, one by one.
pub(super) async fn create(
    file: &Path,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    apply(Verb::Create, file, service, output).await
}

/// Updates every application of the file, one by one; only elements present are changed.
pub(super) async fn update(
    file: &Path,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    apply(Verb::Update, file, service, output).await
}

async fn apply(
    verb: Verb,
    file: &Path,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let definitions = read(file)?;
    let applications = service.connect()?.applications();
    let count = definitions.len();
    let bar = output.progress(count, "applications");
    let mut results = Vec::with_capacity(count);
    let mut worst = None;
    apply_each(verb, definitions, &applications, &mut |applied| {
        bar.inc(1);
        let Applied { name, notes, outcome } = applied;
        let result = |result, message| ResultDocument { name: name.clone(), result, message };
        bar.suspend(|| warn(&name, &notes, output));
        match outcome {
            Outcome::Done(warnings) => {
                bar.suspend(|| report(&warnings, output));
                results.push(result(verb.done(), None));
            }
            Outcome::Failed(failure) => {
                results.push(result("failed", Some(failure.message())));
                if count > 1 {
                    bar.suspend(|| output.failure(&failure));
                }
                worst = Some(failure);
            }
            Outcome::NotTried => results.push(result("not_tried", None)),
        }
    })
    .await;
    bar.finish_and_clear();
    match worst {
        Some(failure) if count == 1 => Err(failure),
        worst => {
            let rows: Vec<_> =
                results.iter().map(|one| vec![one.name.clone(), one.result.to_owned()]).collect();
            output.document(&ResultsDocument { applications: results }, |output| {
                output.table(&["NAME", "RESULT"], rows)
            })?;
            worst.map_or(Ok(()), |failure| Err(Failure::Reported(code_of_many(&failure))))
        }
    }
}

/// The applications of a file, or of standard input for `-`.
pub(crate) fn read(file: &Path) -> Result<Vec<ApplicationDefinition>, Failure> {
    let bytes = read_file(file)?;
    parse_applications(&bytes).map_err(|error| Failure::xml(file, &error))
}

/// The exit code where some of several were refused: of the last failure only where nobody answered.
pub(crate) fn code_of_many(last: &Failure) -> u8 {
    match is_unreachable(last) {
        true => last.exit_code(),
        false => Exit::Refused.code(),
    }
}

fn is_unreachable(failure: &Failure) -> bool {
    matches!(failure, Failure::Client(ClientError::Unreachable { .. }))
}

fn warn(name: &str, notes: &[String], output: &Output) {
    for note in notes {
        output.warn(None, &format!("application '{name}': {note}"));
    }
}

/// What became of one application of a file.
pub(crate) struct Applied {
    pub(crate) name: String,
    /// What of the file was left out, in words.
    pub(crate) notes: Vec<String>,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    Done(Vec<Warning>),
    Failed(Failure),
    /// Nobody answered an earlier one.
    NotTried,
}

/// Creates or updates one after the other; each has an outcome of its own. When nobody answers, the
/// rest is not tried.
pub(crate) async fn apply_each(
    verb: Verb,
    definitions: Vec<ApplicationDefinition>,
    applications: &Applications,
    on: &mut dyn FnMut(Applied),
) {
    let mut unreachable = false;
    for definition in definitions {
        let name = definition.name.clone();
        if unreachable {
            on(Applied { name, notes: Vec::new(), outcome: Outcome::NotTried });
            continue;
        }
        let (notes, sent) = match prepare(verb, definition) {
            Ok((request, notes)) => (notes, send(applications, request).await),
            Err(failure) => (Vec::new(), Err(failure)),
        };
        let outcome = match sent {
            Ok(warnings) => Outcome::Done(warnings),
            Err(failure) => {
                unreachable = is_unreachable(&failure);
                Outcome::Failed(naming(&name, failure))
            }
        };
        on(Applied { name, notes, outcome });
    }
}

/// The failure with the application in its message, for refusals that speak of a part of it.
fn naming(name: &str, failure: Failure) -> Failure {
    let named = |mut refusal: Refusal| {
        if !refusal.message.contains(name) {
            refusal.message = format!("application '{name}': {}", refusal.message);
        }
        refusal
    };
    let Failure::Client(error) = failure else { return failure };
    Failure::Client(match error {
        ClientError::Denied(refusal) => ClientError::Denied(named(refusal)),
        ClientError::Invalid(refusal) => ClientError::Invalid(named(refusal)),
        ClientError::Conflict(refusal) => ClientError::Conflict(named(refusal)),
        ClientError::Precondition(refusal) => ClientError::Precondition(named(refusal)),
        error @ (ClientError::NotFound(_)
        | ClientError::Unavailable(_)
        | ClientError::Damaged(_)
        | ClientError::Fault(_)
        | ClientError::Unreachable { .. }
        | ClientError::Settings(_)
        | _) => error,
    })
}

async fn send(applications: &Applications, request: Request) -> Result<Vec<Warning>, Failure> {
    let (_, warnings) = match request {
        Request::Create(application) => applications.create(application).await?,
        Request::Update(application, paths) => applications.update(application, &paths).await?,
    };
    Ok(warnings)
}

#[derive(Debug, Serialize)]
struct ExportDocument<'a> {
    file: String,
    applications: Vec<&'a str>,
}

/// Writes applications as XML, to standard output or a file; with JSON output and no file as JSON.
pub(super) async fn export(
    args: &ExportArgs,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let applications = fetch(args, &service.connect()?.applications(), output).await?;
    let Some(file) = &args.file else {
        if output.is_json() {
            let applications = applications.into_iter().map(ApplicationDocument::from).collect();
            return output.document(&ApplicationsDocument { applications }, |_| Ok(()));
        }
        return output.raw(&as_xml(applications)?);
    };
    let names: Vec<_> = applications.iter().map(|application| application.name.clone()).collect();
    std::fs::write(file, as_xml(applications)?)
        .map_err(|error| Failure::io(file.display().to_string(), error))?;
    let document = ExportDocument {
        file: file.display().to_string(),
        applications: names.iter().map(String::as_str).collect(),
    };
    output.document(&document, |output| {
        output.note(&format!("wrote {} applications to {}", names.len(), document.file));
        Ok(())
    })
}

async fn fetch(
    args: &ExportArgs,
    applications: &Applications,
    output: &Output,
) -> Result<Vec<Application>, Failure> {
    if args.names.is_empty() {
        let listed = applications.list(&ApplicationFilter::default()).await?;
        return Ok(administered(listed, output));
    }
    let bar = output.progress(args.names.len(), "applications");
    let mut fetched = Vec::with_capacity(args.names.len());
    for name in &args.names {
        let application = applications.show(name).await;
        bar.inc(1);
        fetched.push(application.inspect_err(|_| bar.finish_and_clear())?);
    }
    bar.finish_and_clear();
    Ok(fetched)
}

/// Those that came with their accounts; the rest cannot be made anew from a file.
fn administered(listed: Vec<Application>, output: &Output) -> Vec<Application> {
    let (skipped, administered): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|application| application.sensitive_info_removed);
    if !skipped.is_empty() {
        let names: Vec<_> = skipped.into_iter().map(|application| application.name).collect();
        let names = names.join(", ");
        output.warn(None, &format!("skipped, as you do not administer them: {names}"));
    }
    administered
}

#[cfg(test)]
mod tests;
