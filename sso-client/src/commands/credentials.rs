//! `sso credentials`: the credentials mapped to the caller's own account.

use clap::{Args, Subcommand};
use serde::Serialize;
use sso_client::{Client, Credentials, v1::Field};

use super::Service;
use crate::{failure::Failure, output::Output};

#[derive(Debug, Subcommand)]
pub(crate) enum CredentialsCommand {
    /// Look up your credentials; it is recorded
    Get(GetArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
The table shows values of masked fields only with --reveal; JSON has every value:
  {\"application\": \"Mainframe\", \"external_user\": \"ASM01\", \"credentials\": [\"secret\"]}

Examples:
  sso credentials get Mainframe --reveal
  sso credentials get Mainframe --output json")]
pub(crate) struct GetArgs {
    /// Name of the application
    #[arg(value_name = "APP")]
    application: String,
    /// Read the database, whatever the server has cached
    #[arg(long)]
    refresh: bool,
    /// Show values of masked fields too
    #[arg(long)]
    reveal: bool,
}

pub(crate) async fn run(
    command: CredentialsCommand,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let CredentialsCommand::Get(args) = command;
    let client = service.connect()?;
    let credentials = client.lookup().credentials(&args.application, args.refresh).await?;
    show(&credentials, &client, args.reveal, output).await
}

/// The one place where credentials become plain: the user asked for them.
#[derive(Serialize)]
struct CredentialsDocument<'c> {
    application: &'c str,
    external_user: &'c str,
    credentials: Vec<&'c str>,
}

impl<'c> CredentialsDocument<'c> {
    fn new(credentials: &'c Credentials) -> Self {
        Self {
            application: &credentials.application,
            external_user: &credentials.external_user,
            // Expose: onto standard output, as asked.
            credentials: credentials.values.iter().map(|value| value.expose()).collect(),
        }
    }
}

/// Prints credentials: as JSON every value, as a table those that are not masked or to be revealed.
pub(super) async fn show(
    credentials: &Credentials,
    client: &Client,
    reveal: bool,
    output: &Output,
) -> Result<(), Failure> {
    if output.is_json() {
        return output.document(&CredentialsDocument::new(credentials), |_| Ok(()));
    }
    // Only labels are missing where the application cannot be read.
    let application = client.applications().show(&credentials.application).await;
    let fields = application.map(|application| application.fields).unwrap_or_default();
    output.pairs(vec![
        ("application", credentials.application.clone()),
        ("external user", credentials.external_user.clone()),
    ])?;
    if credentials.values.is_empty() {
        return Ok(());
    }
    output.line("")?;
    output.table(&["FIELD", "VALUE"], rows(credentials, &fields, reveal))
}

fn rows(credentials: &Credentials, fields: &[Field], reveal: bool) -> Vec<Vec<String>> {
    (1..)
        .zip(&credentials.values)
        .map(|(ordinal, value)| {
            let field = fields.iter().find(|field| field.ordinal == ordinal);
            let label =
                field.map_or_else(|| format!("field {ordinal}"), |field| field.label.clone());
            let masked = field.is_none_or(|field| field.masked);
            let shown = match masked && !reveal {
                true => "(masked; --reveal shows it)".to_owned(),
                // Expose: onto standard output, as asked.
                false => value.expose().to_owned(),
            };
            vec![label, shown]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use sso_client::SecretText;

    use super::*;

    fn sample() -> Credentials {
        Credentials {
            application: "App".into(),
            external_user: "X1".into(),
            values: ["secret", "GROUP"].map(|text| SecretText::new(text.into())).to_vec(),
        }
    }

    #[test]
    fn json_is_what_the_reference_of_the_command_says() {
        let json = serde_json::to_string(&CredentialsDocument::new(&sample())).unwrap();
        assert_eq!(
            json,
            r#"{"application":"App","external_user":"X1","credentials":["secret","GROUP"]}"#
        );
    }

    #[test]
    fn masked_and_unknown_fields_are_hidden() {
        let fields = [Field { ordinal: 2, label: "Group".into(), ..Field::default() }];
        let shown = rows(&sample(), &fields, false);
        assert_eq!(shown[0], ["field 1", "(masked; --reveal shows it)"]);
        assert_eq!(shown[1], ["Group", "GROUP"]);
        assert_eq!(rows(&sample(), &fields, true)[0], ["field 1", "secret"]);
    }
}
