//! The switches of `ssomanage` that are about applications.

use std::path::Path;

use sso_client::ApplicationFilter;

use super::super::app_file::{self, Applied, Outcome, Verb};
use super::{
    application::{display, is_config_store, list_line},
    frame::Call,
};
use crate::failure::Failure;

/// All the caller has a role in; config-store applications only with `all`.
pub(super) async fn list(call: &Call<'_>) -> Result<(), Failure> {
    let all = match call.argument(0) {
        "" => false,
        all if all.eq_ignore_ascii_case("all") => true,
        other => return Err(Failure::usage(format!("'{other}' must be all, or left out"))),
    };
    let applications = call.connect()?.applications().list(&ApplicationFilter::default()).await?;
    for application in applications {
        if all || !is_config_store(&application) {
            call.line(&list_line(&application))?;
        }
    }
    Ok(())
}

pub(super) async fn show(call: &Call<'_>) -> Result<(), Failure> {
    let application = call.connect()?.applications().show(call.argument(0)).await?;
    display(&application, call)
}

/// Creates or updates every application of a file; each has an outcome of its own.
pub(super) async fn apply(verb: Verb, call: &Call<'_>) -> Result<(), Failure> {
    let definitions = app_file::read(Path::new(call.argument(0)))?;
    let applications = call.connect()?.applications();
    let (mut done, mut failed, mut printed) = (0_usize, 0_usize, Ok(()));
    let mut code = None;
    app_file::apply_each(verb, definitions, &applications, &mut |applied| {
        let Applied { name, notes, outcome } = applied;
        for note in notes {
            call.warn(&format!("application '{name}': {note}"));
        }
        match outcome {
            Outcome::Done(warnings) => {
                call.warn_all(&warnings);
                done += 1;
                let line = call.line(&format!("Application '{name}' {}.", verb.done()));
                printed = std::mem::replace(&mut printed, Ok(())).and(line);
            }
            Outcome::Failed(failure) => {
                call.report(&failure);
                code = Some(app_file::code_of_many(&failure));
                failed += 1;
            }
            Outcome::NotTried => {
                call.warn(&format!("application '{name}' was not tried"));
                failed += 1;
            }
        }
    })
    .await;
    printed?;
    call.line(&format!("{done} {}, {failed} failed.", count_of(done, verb.done())))?;
    code.map_or(Ok(()), |code| Err(Failure::Reported(code)))
}

fn count_of(count: usize, what: &str) -> String {
    format!("application{} {what}", if count == 1 { "" } else { "s" })
}

pub(super) async fn delete(call: &Call<'_>) -> Result<(), Failure> {
    match call.connect()?.applications().delete(call.argument(0)).await? {
        true => call.line(&format!("Application '{}' deleted.", call.argument(0))),
        false => call.line(&format!("There is no application '{}'.", call.argument(0))),
    }
}

pub(super) async fn enable(call: &Call<'_>) -> Result<(), Failure> {
    let application = call.connect()?.applications().enable(call.argument(0)).await?;
    call.line(&format!("Application '{}' enabled.", application.name))
}

pub(super) async fn disable(call: &Call<'_>) -> Result<(), Failure> {
    let application = call.connect()?.applications().disable(call.argument(0)).await?;
    call.line(&format!("Application '{}' disabled.", application.name))
}

pub(super) async fn purge_cache(call: &Call<'_>) -> Result<(), Failure> {
    call.connect()?.applications().purge_cache(call.argument(0)).await?;
    call.line(&format!(
        "Every server forgets what it has cached of '{}' within one poll.",
        call.argument(0)
    ))
}
