//! Mappings and their credentials, for administrators and for users.

use std::path::Path;

use sso_client::{
    ClientError, MappingFilter, MappingKey, Mappings, NewMapping,
    v1::{Application, Mapping},
};

use super::super::mapping::{
    batch::{Batch, Outcome, Verb},
    file,
};
use super::{
    application::{is_host_group, marker},
    frame::{Call, refusal_text},
    prompt::Prompt,
};
use crate::failure::Failure;

/// `DOMAIN\user`, an application, or both; in place of the user an external one.
pub(super) async fn list_of_arguments(call: &Call<'_>) -> Result<(), Failure> {
    let (first, second) = (call.argument(0).to_owned(), call.argument(1).to_owned());
    let is_account = first.contains('\\');
    let filter = match (is_account, second.is_empty()) {
        (true, _) => MappingFilter { account: first, application: second, ..Default::default() },
        (false, true) => MappingFilter { application: first, ..Default::default() },
        (false, false) => {
            MappingFilter { external_user: first, application: second, ..Default::default() }
        }
    };
    list(&filter, call).await
}

/// Page by page, so that a million of them need no room.
pub(super) async fn list(filter: &MappingFilter, call: &Call<'_>) -> Result<(), Failure> {
    let mappings = call.connect()?.mappings();
    let mut token = String::new();
    loop {
        let (page, next) = mappings.page(filter, token).await?;
        for mapping in &page {
            call.line(&list_line(mapping))?;
        }
        if next.is_empty() {
            return Ok(());
        }
        token = next;
    }
}

/// (E) enabled, (D) disabled, and what else keeps it from being of use.
fn list_line(mapping: &Mapping) -> String {
    let mut line = format!(
        "{} {} : {} : {}",
        marker(mapping.enabled),
        mapping.account,
        mapping.application,
        mapping.external_user
    );
    for (is_so, words) in [
        (mapping.disabled_by_administrator, "disabled by an administrator"),
        (!mapping.credentials_set, "no credentials"),
        (mapping.orphaned, "not among the users of the application"),
    ] {
        if is_so {
            line.push_str(&format!(" : {words}"));
        }
    }
    line
}

/// The mapping that `DOMAIN\user`, or in a host group application an external user, names.
pub(super) fn key_of(application: &Application, name: &str) -> MappingKey {
    match is_host_group(application) {
        true => MappingKey::external_user(&application.name, name),
        false => MappingKey::account(&application.name, name),
    }
}

/// The client, the application that the second argument names, and the mapping that both name.
pub(super) async fn named(
    call: &Call<'_>,
) -> Result<(sso_client::Client, Application, MappingKey), Failure> {
    let client = call.connect()?;
    let application = client.applications().show(call.argument(1)).await?;
    let key = key_of(&application, call.argument(0));
    Ok((client, application, key))
}

/// What is done with one mapping that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Delete,
    Enable,
    Disable,
}

pub(super) async fn change(
    change: Change,
    mappings: &Mappings,
    key: &MappingKey,
    call: &Call<'_>,
) -> Result<(), Failure> {
    let done = match change {
        Change::Enable => mappings.enable(key).await.map(|_| "enabled"),
        Change::Disable => mappings.disable(key).await.map(|_| "disabled"),
        Change::Delete => match mappings.delete(key).await? {
            true => Ok("deleted"),
            false => return call.line("There is no such mapping."),
        },
    }?;
    call.line(&format!("Mapping {done}."))
}

/// Creates or deletes every mapping of a file. One that is refused is reported with its line; the rest
/// goes on.
pub(super) async fn change_all(verb: Verb, call: &Call<'_>) -> Result<(), Failure> {
    let (positions, mappings) = file::read(Path::new(call.argument(0)), false)?;
    let batch = Batch { verb, dry_run: false, mappings: &mappings, positions: &positions };
    let service = call.connect()?.mappings();
    let outcome = batch.send(&service, &call.progress(mappings.len(), "mappings")).await;
    for (index, refusal) in &outcome.refused {
        let (Some(position), Some(mapping)) = (positions.get(*index), mappings.get(*index)) else {
            continue;
        };
        call.warn(&format!(
            "line {}: {}: {} ({})",
            position.line,
            name_of(mapping),
            refusal.message,
            refusal_text(refusal)
        ));
    }
    call.line(&counts(verb, &outcome))?;
    outcome.end()
}

fn counts(verb: Verb, outcome: &Outcome) -> String {
    let done = match verb {
        Verb::Create => "created",
        Verb::Delete => "deleted",
    };
    let mut text = format!("{} mappings {done}, {} failed", outcome.done, outcome.refused.len());
    if outcome.left > 0 {
        text.push_str(&format!(", {} not done", outcome.left));
    }
    text + "."
}

fn name_of(mapping: &NewMapping) -> String {
    let NewMapping { account, application, external_user, .. } = mapping;
    format!("{account} : {application} : {external_user}")
}

/// Asks for the credentials and stores them; where the mapping is missing, asks for the external user
/// first, creates it and enables it.
pub(super) async fn set_credentials(
    mappings: &Mappings,
    application: &Application,
    key: &MappingKey,
    call: &Call<'_>,
) -> Result<(), Failure> {
    let known = match mappings.show(key).await {
        Ok(mapping) => Some(mapping.external_user),
        Err(ClientError::NotFound(refusal)) if refusal.reason == "MAPPING_NOT_FOUND" => None,
        Err(error) => return Err(error.into()),
    };
    // In a host group application the mapping is named by its external user.
    let named = is_host_group(application).then(|| call.argument(0).to_owned());
    let missing = known.is_none();
    let known = known.or_else(|| named.clone());
    let answers = Prompt::open()?.answers(application, known.as_deref())?;
    let external_user = if missing { answers.external_user.or(named) } else { None };
    let credentials = answers.credentials;
    let set = mappings.set_credentials(key, &credentials, external_user.as_deref()).await?;
    call.warn_all(&set.warnings);
    if set.created {
        call.line(&format!("Mapping to '{}' created and enabled.", set.mapping.external_user))?;
    }
    call.line("Credentials set.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_keeps_a_mapping_from_being_of_use() {
        let mut mapping = Mapping {
            application: "Payroll".into(),
            account: r"D\u".into(),
            external_user: "U1".into(),
            enabled: true,
            credentials_set: true,
            ..Mapping::default()
        };
        assert_eq!(list_line(&mapping), r"(E) D\u : Payroll : U1");
        mapping.enabled = false;
        mapping.disabled_by_administrator = true;
        mapping.credentials_set = false;
        assert_eq!(
            list_line(&mapping),
            r"(D) D\u : Payroll : U1 : disabled by an administrator : no credentials"
        );
    }

    #[test]
    fn a_host_group_is_keyed_by_the_external_user() {
        let mut application = Application { name: "A".into(), r#type: 1, ..Application::default() };
        assert_eq!(key_of(&application, r"D\u"), MappingKey::account("A", r"D\u"));
        application.r#type = 4;
        assert_eq!(key_of(&application, "JOB1"), MappingKey::external_user("A", "JOB1"));
    }
}
