//! How applications are listed and displayed.

use sso_client::v1::{Application, ApplicationType};

use super::super::{app_file, shown::application_type};
use super::frame::Call;
use crate::failure::Failure;

/// One line of a list: (E) enabled, (D) disabled.
pub(super) fn list_line(application: &Application) -> String {
    let mut line = format!("{} {}", marker(application.enabled), application.name);
    for text in [&application.description, &application.contact] {
        if !text.is_empty() {
            line.push_str(&format!(" : {text}"));
        }
    }
    line
}

pub(super) fn marker(enabled: bool) -> &'static str {
    if enabled { "(E)" } else { "(D)" }
}

pub(super) fn is_config_store(application: &Application) -> bool {
    application.r#type == i32::from(ApplicationType::ConfigStore)
}

pub(super) fn is_host_group(application: &Application) -> bool {
    application.r#type == i32::from(ApplicationType::HostGroup)
}

/// Properties, flags and fields.
pub(super) fn display(application: &Application, call: &Call<'_>) -> Result<(), Failure> {
    let accounts = |accounts: &[String]| match application.sensitive_info_removed {
        true => "(only administrators see this)".to_owned(),
        false => accounts.join(";"),
    };
    let users = match is_host_group(application) {
        true => ("Windows account", accounts(std::slice::from_ref(&application.windows_account))),
        false => ("Application users account", accounts(&application.user_accounts)),
    };
    let administrators = match application.administrators_same {
        true => "(the SSO affiliate administrators)".to_owned(),
        false => accounts(&application.administrator_accounts),
    };
    let timeout = match application.ticket_timeout {
        0 => "(that of the system)".to_owned(),
        minutes => format!("{minutes} minutes"),
    };
    call.pairs(&[
        ("Application name", application.name.clone()),
        ("Application type", application_type(application.r#type).to_owned()),
        ("Status", if application.enabled { "enabled" } else { "disabled" }.to_owned()),
        ("Description", application.description.clone()),
        ("Contact", application.contact.clone()),
        users,
        ("Application admin account", administrators),
        ("Ticket timeout", timeout),
        ("Number of fields", application.fields.len().to_string()),
    ])?;
    call.line("")?;
    let flags = app_file::flags(application);
    let yes = |on| if on { "yes" } else { "no" }.to_owned();
    let flags: Vec<_> = flags.iter().map(|(flag, on)| (flag.as_str(), yes(on))).collect();
    call.pairs(&flags)?;
    call.line("")?;
    let mut fields: Vec<_> = application.fields.iter().collect();
    fields.sort_by_key(|field| field.ordinal);
    for field in fields {
        let masked = if field.masked { ", masked" } else { "" };
        let synchronized = if field.synchronized { ", synchronized" } else { "" };
        call.line(&format!("Field {} : {}{masked}{synchronized}", field.ordinal, field.label))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_leaves_out_what_is_empty() {
        let mut application = Application { name: "Payroll".into(), ..Application::default() };
        assert_eq!(list_line(&application), "(D) Payroll");
        application.enabled = true;
        application.description = "of the host".into();
        application.contact = "ops@corp.example".into();
        assert_eq!(list_line(&application), "(E) Payroll : of the host : ops@corp.example");
    }
}
