//! Writing configurations: `sso config set` and `sso config import`.

use serde::Serialize;
use sso_client::{Client, ConfigurationKey, SetMode, SetOptions, SetOutcome, Values, v1, xml};

use super::{
    Service,
    config::{IDENTIFIER, ImportArgs, SetArgs},
    read_file,
    shown::or_dash,
};
use crate::{
    failure::Failure,
    output::Output,
    values::{Collected, parse_pair, prompt, read_json},
};

/// What was given and what of it came from the command line itself.
struct Input {
    key: ConfigurationKey,
    collected: Collected,
    on_command_line: Vec<String>,
}

pub(super) async fn set(
    args: SetArgs,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let options =
        SetOptions { if_revision: args.if_revision, mode: SetMode::Merge, dry_run: args.dry_run };
    let mut input = parse_command_line(&args)?;
    if let Some(file) = &args.values {
        for (label, value) in read_json(file)? {
            input.collected.add(label, value, "--values")?;
        }
    }
    let client = service.connect()?;
    if !input.on_command_line.is_empty() {
        let application = client.applications().show(&input.key.application).await?;
        require_unmasked(&application, &input.on_command_line)?;
    }
    // Asked last, so that nobody types a secret for a request that cannot be sent.
    for label in args.prompt {
        let secret = prompt(&label)?;
        input.collected.add(label, Some(secret), "--prompt")?;
    }
    write(&client, &input.key, &input.collected.into_values(), options, output).await
}

pub(super) async fn import(
    args: &ImportArgs,
    key: &ConfigurationKey,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let bytes = read_file(&args.file)?;
    let settings = xml::parse_settings(&bytes).map_err(|error| Failure::xml(&args.file, &error))?;
    let values = settings.into_iter().map(|setting| (setting.name, Some(setting.value))).collect();
    let options =
        SetOptions { if_revision: args.if_revision, mode: args.mode.into(), dry_run: args.dry_run };
    write(&service.connect()?, key, &values, options, output).await
}

fn parse_command_line(args: &SetArgs) -> Result<Input, Failure> {
    let mut pairs: Vec<&String> = args.pairs.iter().collect();
    let identifier = match &args.identifier {
        // The identifier was left out: what stands in its place is the first pair.
        Some(pair) if pair.contains('=') => {
            pairs.insert(0, pair);
            IDENTIFIER
        }
        Some(identifier) => identifier,
        None => IDENTIFIER,
    };
    let mut collected = Collected::default();
    let mut on_command_line = Vec::new();
    for pair in pairs {
        let (label, value) = parse_pair(pair)?;
        on_command_line.push(label.clone());
        collected.add(label, Some(value), "the command line")?;
    }
    if collected.is_empty() && args.values.is_none() && args.prompt.is_empty() {
        return Err(Failure::usage_hint(
            "no value is given",
            "give KEY=VALUE, --prompt KEY, or --values with a JSON object",
        ));
    }
    let key = ConfigurationKey::new(&args.application, identifier);
    Ok(Input { key, collected, on_command_line })
}

/// Refuses values of masked fields that stand on the command line.
fn require_unmasked(application: &v1::Application, labels: &[String]) -> Result<(), Failure> {
    let masked = labels.iter().find(|label| {
        let label = label.to_lowercase();
        application.fields.iter().any(|field| field.masked && field.label.to_lowercase() == label)
    });
    match masked {
        None => Ok(()),
        Some(label) => Err(Failure::usage_hint(
            format!(
                "field '{label}' is masked: its value must not stand on the command line, where \
                 other users and the shell's history see it; nothing was written"
            ),
            format!("use --prompt '{label}', or --values - with a JSON object on standard input"),
        )),
    }
}

#[derive(Debug, Serialize)]
struct OutcomeDocument<'a> {
    application: &'a str,
    identifier: &'a str,
    revision: u64,
    created: bool,
    dry_run: bool,
    written: &'a [String],
    kept: &'a [String],
    cleared: &'a [String],
}

async fn write(
    client: &Client,
    key: &ConfigurationKey,
    values: &Values,
    options: SetOptions,
    output: &Output,
) -> Result<(), Failure> {
    let outcome = client.config_store().set(key, values, options).await?;
    let document = OutcomeDocument {
        application: &key.application,
        identifier: &key.identifier,
        revision: outcome.revision,
        created: outcome.created,
        dry_run: options.dry_run,
        written: &outcome.written,
        kept: &outcome.kept,
        cleared: &outcome.cleared,
    };
    output.document(&document, |output| output.pairs(pairs(&outcome, options.dry_run)))
}

fn pairs(outcome: &SetOutcome, dry_run: bool) -> Vec<(&'static str, String)> {
    let revision = match (dry_run, outcome.created) {
        (false, false) => outcome.revision.to_string(),
        (false, true) => format!("{} (created)", outcome.revision),
        (true, false) => format!("{} (dry run, nothing written)", outcome.revision),
        (true, true) => format!("{} (dry run, would be created)", outcome.revision),
    };
    let mut pairs = vec![
        ("revision", revision),
        ("written", or_dash(&outcome.written.join(", "))),
        ("kept", or_dash(&outcome.kept.join(", "))),
    ];
    if !outcome.cleared.is_empty() {
        pairs.push(("cleared", outcome.cleared.join(", ")));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(identifier: Option<&str>, pairs: &[&str]) -> SetArgs {
        SetArgs {
            application: "App".into(),
            identifier: identifier.map(str::to_owned),
            pairs: pairs.iter().map(|&pair| pair.to_owned()).collect(),
            values: None,
            prompt: Vec::new(),
            if_revision: None,
            dry_run: false,
        }
    }

    #[test]
    fn the_identifier_may_be_left_out() {
        let input = parse_command_line(&args(Some("A=1"), &["B=2"])).unwrap();
        assert_eq!(input.key.identifier, IDENTIFIER);
        assert_eq!(input.on_command_line, ["A", "B"]);
        let input = parse_command_line(&args(Some("Id"), &["B=2"])).unwrap();
        assert_eq!((input.key.identifier.as_str(), input.on_command_line.len()), ("Id", 1));
    }

    #[test]
    fn bad_command_lines() {
        for bad in [args(Some("Id"), &[]), args(None, &[]), args(Some("Id"), &["A=1", "a=2"])] {
            let failure = parse_command_line(&bad).err().unwrap();
            assert_eq!(failure.exit_code(), 2, "{failure:?}");
        }
        let debug = format!("{:?}", args(Some("Id"), &["A=canary"]));
        assert!(!debug.contains("canary"), "{debug}");
    }

    #[test]
    fn masked_fields_are_refused_with_the_right_way() {
        let application = v1::Application {
            fields: vec![v1::Field {
                ordinal: 1,
                label: "ApiKey".into(),
                masked: true,
                ..Default::default()
            }],
            ..Default::default()
        };
        assert!(require_unmasked(&application, &["Url".into()]).is_ok());
        let failure = require_unmasked(&application, &["apikey".into()]).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.hint().unwrap().contains("--prompt 'apikey'"));
        assert!(failure.hint().unwrap().contains("--values -"));
    }

    #[test]
    fn outcomes_in_words() {
        let outcome = SetOutcome {
            revision: 2,
            created: true,
            written: vec!["A".into()],
            cleared: vec!["B".into()],
            ..Default::default()
        };
        let pairs = pairs(&outcome, true);
        assert_eq!(pairs[0].1, "2 (dry run, would be created)");
        assert!(pairs.contains(&("kept", "-".into())) && pairs.contains(&("cleared", "B".into())));
    }
}
