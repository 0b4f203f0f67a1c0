//! How an application is shown.

use std::collections::BTreeMap;

use serde::Serialize;
use sso_client::v1::{Application, ApplicationType, Field};

use super::{
    super::shown::{application_type, or_dash, time, time_cell, yes},
    flags,
};
use crate::{failure::Failure, output::Output};

#[derive(Debug, Serialize)]
pub(in crate::commands) struct ApplicationsDocument {
    pub(in crate::commands) applications: Vec<ApplicationDocument>,
}

#[derive(Debug, Serialize)]
pub(in crate::commands) struct ApplicationDocument {
    name: String,
    r#type: &'static str,
    description: String,
    contact: String,
    enabled: bool,
    user_accounts: Vec<String>,
    administrator_accounts: Vec<String>,
    administrators_same: bool,
    windows_account: String,
    allow_local_accounts: bool,
    /// Minutes; 0 = as the system has it.
    ticket_timeout: u32,
    fields: Vec<FieldDocument>,
    flags: BTreeMap<&'static str, bool>,
    id: String,
    created_at: Option<String>,
    updated_at: Option<String>,
    sensitive_info_removed: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct FieldDocument {
    pub(super) ordinal: u32,
    pub(super) label: String,
    pub(super) masked: bool,
    synchronized: bool,
}

impl From<Field> for FieldDocument {
    fn from(field: Field) -> Self {
        Self {
            ordinal: field.ordinal,
            label: field.label,
            masked: field.masked,
            synchronized: field.synchronized,
        }
    }
}

impl From<Application> for ApplicationDocument {
    fn from(application: Application) -> Self {
        Self {
            r#type: application_type(application.r#type),
            created_at: time(application.created_at.as_ref()),
            updated_at: time(application.updated_at.as_ref()),
            flags: flags::by_name(&application),
            name: application.name,
            description: application.description,
            contact: application.contact,
            enabled: application.enabled,
            user_accounts: application.user_accounts,
            administrator_accounts: application.administrator_accounts,
            administrators_same: application.administrators_same,
            windows_account: application.windows_account,
            allow_local_accounts: application.allow_local_accounts,
            ticket_timeout: application.ticket_timeout,
            fields: application.fields.into_iter().map(FieldDocument::from).collect(),
            id: application.id,
            sensitive_info_removed: application.sensitive_info_removed,
        }
    }
}

pub(super) fn show(application: Application, output: &Output) -> Result<(), Failure> {
    let pairs = pairs(&application);
    let fields: Vec<_> = application
        .fields
        .iter()
        .map(|field| {
            let synchronized = yes(field.synchronized);
            vec![field.ordinal.to_string(), field.label.clone(), yes(field.masked), synchronized]
        })
        .collect();
    output.document(&ApplicationDocument::from(application), |output| {
        output.pairs(pairs)?;
        output.line("")?;
        output.table(&["ORDINAL", "LABEL", "MASKED", "SYNCHRONIZED"], fields)
    })
}

fn kind(application: &Application) -> ApplicationType {
    ApplicationType::try_from(application.r#type).unwrap_or_default()
}

pub(super) fn pairs(application: &Application) -> Vec<(&'static str, String)> {
    let kind = kind(application);
    let mut pairs = vec![
        ("name", application.name.clone()),
        ("type", application_type(application.r#type).to_owned()),
        ("state", if application.enabled { "enabled" } else { "disabled" }.to_owned()),
        ("description", or_dash(&application.description)),
        ("contact", or_dash(&application.contact)),
    ];
    pairs.extend(accounts(application));
    pairs.push(("local accounts", yes(application.allow_local_accounts)));
    // Flags and timeouts mean nothing to a config store.
    if kind != ApplicationType::ConfigStore {
        let timeout = match application.ticket_timeout {
            0 => "as the system has it".to_owned(),
            minutes => format!("{minutes} min"),
        };
        pairs.push(("ticket timeout", timeout));
        pairs.push(("flags on", or_dash(&flags::options(application, true).join(", "))));
        pairs.push(("flags off", or_dash(&flags::options(application, false).join(", "))));
    }
    pairs.push(("created", time_cell(application.created_at.as_ref())));
    pairs.push(("updated", time_cell(application.updated_at.as_ref())));
    pairs.push(("id", application.id.clone()));
    pairs
}

fn accounts(application: &Application) -> [(&'static str, String); 2] {
    let seen = |text: &str| match application.sensitive_info_removed {
        true => "(only administrators see this)".to_owned(),
        false => or_dash(text),
    };
    let users = match kind(application) {
        ApplicationType::HostGroup => ("windows account", seen(&application.windows_account)),
        ApplicationType::Individual
        | ApplicationType::Group
        | ApplicationType::ConfigStore
        | ApplicationType::Unspecified => ("users", seen(&application.user_accounts.join("; "))),
    };
    let administrators = match application.administrators_same {
        true => "(the affiliate administrators)".to_owned(),
        false => seen(&application.administrator_accounts.join("; ")),
    };
    [users, ("administrators", administrators)]
}
