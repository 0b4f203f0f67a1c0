//! `sso mapping generate`: mappings for all users of an application.

use std::{
    collections::{HashMap, HashSet},
    io::IsTerminal as _,
};

use serde::Serialize;
use sso_client::{
    Client, MappingFilter, NewMapping, SecretText,
    v1::{Application, ApplicationType, Mapping},
    xml::{MappingDefinition, Position},
};

use super::{
    super::Service,
    all,
    args::GenerateArgs,
    batch::{Batch, Verb},
    file,
    rules::PasswordSource,
};
use crate::{
    failure::Failure,
    output::Output,
    values::{ask, read_line},
};

/// One account and the name that was made for it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    account: String,
    external_user: String,
    result: Planned,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Planned {
    Create,
    /// The account has a mapping, for this external user.
    Mapped(String),
    Clash(String),
}

#[derive(Debug, Serialize)]
struct PlansDocument<'a> {
    application: &'a str,
    mappings: Vec<PlanDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct PlanDocument<'a> {
    account: &'a str,
    external_user: &'a str,
    /// `create`, `kept` or `clash`.
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mapped_to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

pub(super) async fn run(
    args: GenerateArgs,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let client = service.connect_for_batches()?;
    let application = client.applications().show(&args.application).await?;
    require_fitting(&application, args.password)?;
    let plans = plan(&args, &application.name, &client, output).await?;
    if plans.iter().any(|plan| matches!(plan.result, Planned::Clash(_))) {
        show(&application.name, &plans, output)?;
        return Err(Failure::refused(
            "names clash; nothing was written",
            "other rules keep them apart: --domain, --separator, --max-length",
        ));
    }
    let new: Vec<&Plan> = plans.iter().filter(|plan| plan.result == Planned::Create).collect();
    if let Some(path) = &args.write {
        let definitions = new.iter().map(|plan| definition(&application.name, plan));
        file::write(path, &definitions.collect::<Vec<_>>())?;
        output.note(&format!("wrote {} mappings to {}", new.len(), path.display()));
    }
    if args.dry_run {
        return show(&application.name, &plans, output);
    }
    let kept = plans.len() - new.len();
    if kept > 0 {
        output.note(&match kept {
            1 => "1 account has a mapping and keeps it".to_owned(),
            many => format!("{many} accounts have a mapping and keep it"),
        });
    }
    let mappings = with_passwords(&args, &application.name, &new)?;
    let batch = Batch { verb: Verb::Create, dry_run: false, mappings: &mappings, positions: &[] };
    batch.run(&client.mappings(), output).await
}

/// Refuses applications whose mappings cannot be made from accounts.
fn require_fitting(application: &Application, password: PasswordSource) -> Result<(), Failure> {
    let name = &application.name;
    if application.r#type != i32::from(ApplicationType::Individual) {
        return Err(Failure::refused(
            format!("application '{name}' does not map single users"),
            "mappings are generated for individual applications; see sso mapping create --help",
        ));
    }
    let values = application.fields.len().saturating_sub(1);
    match password == PasswordSource::None || values == 1 {
        true => Ok(()),
        false => Err(Failure::refused(
            format!("application '{name}' has {values} fields beside field 0"),
            "a password is generated where there is exactly one; leave --password out and use \
             'sso mapping set-credentials'",
        )),
    }
}

async fn plan(
    args: &GenerateArgs,
    application: &str,
    client: &Client,
    output: &Output,
) -> Result<Vec<Plan>, Failure> {
    let mappings = client.mappings();
    let accounts = mappings.members(application).await?;
    let filter = MappingFilter { application: application.to_owned(), ..MappingFilter::default() };
    let existing = all(&mappings, &filter, output).await?;
    let named = accounts.into_iter().map(|account| {
        let external_user = args.name.name(&account);
        (account, external_user)
    });
    Ok(check(named, &existing))
}

/// Says for each account whether its mapping can be created beside the others and those there are.
fn check(named: impl Iterator<Item = (String, String)>, existing: &[Mapping]) -> Vec<Plan> {
    let by_account: HashMap<String, &Mapping> =
        existing.iter().map(|mapping| (mapping.account.to_lowercase(), mapping)).collect();
    let by_name: HashMap<String, &Mapping> =
        existing.iter().map(|mapping| (mapping.external_user.to_lowercase(), mapping)).collect();
    let mut first: HashMap<String, String> = HashMap::new();
    let mut seen = HashSet::new();
    let mut plans = Vec::new();
    for (account, external_user) in named.filter(|(account, _)| seen.insert(account.to_lowercase()))
    {
        let name = external_user.to_lowercase();
        let result = if let Some(mapping) = by_account.get(&account.to_lowercase()) {
            Planned::Mapped(mapping.external_user.clone())
        } else if external_user.trim().is_empty() {
            Planned::Clash("nothing is left of the name".to_owned())
        } else if let Some(mapping) = by_name.get(&name) {
            Planned::Clash(format!("{} has this name already", mapping.account))
        } else if let Some(other) = first.get(&name) {
            Planned::Clash(format!("{other} gets the same name"))
        } else {
            first.insert(name, account.clone());
            Planned::Create
        };
        plans.push(Plan { account, external_user, result });
    }
    plans
}

fn with_passwords(
    args: &GenerateArgs,
    application: &str,
    plans: &[&Plan],
) -> Result<Vec<NewMapping>, Failure> {
    let fixed = match args.password {
        PasswordSource::Prompt if !plans.is_empty() => Some(fixed_password()?),
        PasswordSource::None
        | PasswordSource::ExternalUser
        | PasswordSource::Rules
        | PasswordSource::Prompt => None,
    };
    let mappings = plans.iter().map(|plan| {
        let password = match args.password {
            PasswordSource::None => None,
            PasswordSource::ExternalUser => Some(SecretText::new(plan.external_user.clone())),
            PasswordSource::Rules => Some(args.password_rules.password(&plan.account)),
            PasswordSource::Prompt => fixed.clone(),
        };
        NewMapping {
            application: application.to_owned(),
            account: plan.account.clone(),
            external_user: plan.external_user.clone(),
            credentials: password.map(|password| vec![password]),
            enable: !args.no_enable,
        }
    });
    Ok(mappings.collect())
}

/// Asked for on a terminal, one line of standard input elsewhere.
fn fixed_password() -> Result<SecretText, Failure> {
    match std::io::stdin().is_terminal() {
        true => ask("Password of every mapping", true, "give it on standard input"),
        false => read_line(),
    }
}

fn definition(application: &str, plan: &Plan) -> MappingDefinition {
    MappingDefinition {
        position: Position::START,
        account: plan.account.clone(),
        application: application.to_owned(),
        external_user: plan.external_user.clone(),
    }
}

fn show(application: &str, plans: &[Plan], output: &Output) -> Result<(), Failure> {
    let mappings: Vec<_> = plans
        .iter()
        .map(|plan| {
            let (result, mapped_to, message) = match &plan.result {
                Planned::Create => ("create", None, None),
                Planned::Mapped(external_user) => ("kept", Some(external_user.as_str()), None),
                Planned::Clash(why) => ("clash", None, Some(why.as_str())),
            };
            let Plan { account, external_user, .. } = plan;
            PlanDocument { account, external_user, result, mapped_to, message }
        })
        .collect();
    let rows: Vec<_> = mappings
        .iter()
        .map(|plan| {
            let result = match (plan.mapped_to, plan.message) {
                (Some(name), _) => format!("keeps its mapping to {name}"),
                (None, Some(why)) => format!("{}: {why}", plan.result),
                (None, None) => plan.result.to_owned(),
            };
            vec![plan.account.to_owned(), plan.external_user.to_owned(), result]
        })
        .collect();
    let document = PlansDocument { application, mappings };
    output.document(&document, |output| output.table(&["ACCOUNT", "EXTERNAL USER", "RESULT"], rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        let pairs: Vec<_> = pairs.iter().map(|&(a, b)| (a.to_owned(), b.to_owned())).collect();
        pairs.into_iter()
    }

    #[test]
    fn clashes_are_found_in_any_case() {
        let existing = [Mapping {
            account: r"D\old".into(),
            external_user: "OLD".into(),
            ..Mapping::default()
        }];
        let plans = check(
            named(&[
                (r"D\a", "X"),
                (r"T\a", "x"),
                (r"D\b", "old"),
                (r"d\OLD", "NEW"),
                (r"D\c", " "),
                (r"D\A", "X"),
            ]),
            &existing,
        );
        let results: Vec<_> = plans.into_iter().map(|plan| plan.result).collect();
        assert_eq!(
            results,
            [
                Planned::Create,
                Planned::Clash(r"D\a gets the same name".into()),
                Planned::Clash(r"D\old has this name already".into()),
                Planned::Mapped("OLD".into()),
                Planned::Clash("nothing is left of the name".into()),
            ]
        );
    }

    #[test]
    fn only_fitting_applications() {
        use sso_client::v1::Field;
        let mut application = Application {
            r#type: ApplicationType::Individual.into(),
            fields: vec![Field::default(), Field::default()],
            ..Application::default()
        };
        assert!(require_fitting(&application, PasswordSource::Rules).is_ok());
        application.fields.push(Field::default());
        assert!(require_fitting(&application, PasswordSource::None).is_ok());
        let failure = require_fitting(&application, PasswordSource::Prompt).unwrap_err();
        assert!(failure.message().contains("2 fields"), "{failure:?}");
        application.r#type = ApplicationType::Group.into();
        assert!(require_fitting(&application, PasswordSource::None).is_err());
    }
}
