//! `sso cert sign`: a certificate for a request of somebody else.

use std::{io::IsTerminal as _, path::PathBuf};

use clap::{ArgGroup, Args};
use sso_client::certificates::{
    Authority, Ledger, RequestedName, Role, SigningRequest, Subject, Terms, Usage,
    write_certificate,
};
use sso_core::clock::Clock;
use time::Duration;

use super::{
    authority::{days_parser, open_authority, refuse_existing},
    shown::print_written_with,
};
use crate::{commands::confirm_below, failure::Failure, output::Output};

const EXAMPLES: &str = "\
Examples:
  sso cert sign --ca issuing bills.csr --out bills.crt --usage client --days 200
  sso cert sign --ca issuing server-2.csr --out server-2.crt --role server --yes
The authority decides: purposes and validity come from here, whatever the request asks for. Subject and
names come from the request, so look at them before you agree.
With --usage the certificate is for a system outside. Servers of this product that trust the same
authority, or its root, may know its names by their rules: systems outside get a root of their own.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("purpose").required(true).multiple(true))]
pub(super) struct SignArgs {
    /// Folder with ca.crt and ca.key
    // The same id as the global option, which it stands in for here.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// Request in PEM or DER
    #[arg(value_name = "REQUEST")]
    request: PathBuf,
    /// File for the certificate and its chain
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Role in this product; names of accounts, servers and masters are refused without it
    #[arg(long, value_enum, group = "purpose")]
    role: Option<Role>,
    /// What it may be used for, by a system outside of this product; may be repeated
    #[arg(long, value_enum, group = "purpose", conflicts_with = "role")]
    usage: Vec<Usage>,
    /// Another subject in place of the one that is asked for
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<Subject>,
    /// Days until it ends
    #[arg(long, value_name = "DAYS", default_value_t = 397, value_parser = days_parser())]
    days: u16,
    /// Address of the revocation list, named in the certificate for systems that look there
    #[arg(long, value_name = "URL")]
    crl_url: Option<String>,
    /// Sign without asking
    #[arg(long)]
    yes: bool,
    /// Overwrite the file
    #[arg(long)]
    replace: bool,
    /// Private file with the passphrase of ca.key
    #[arg(long, value_name = "FILE")]
    ca_passphrase_file: Option<PathBuf>,
}

pub(super) fn run(args: SignArgs, output: &Output) -> Result<(), Failure> {
    if !args.replace {
        refuse_existing(&[&args.out])?;
    }
    let request = SigningRequest::read(&args.request)?;
    let authority = open_authority(&args.ca, args.ca_passphrase_file.as_deref())?;
    let names = request.names(args.subject.as_ref())?;
    let warnings: Vec<_> = match args.role {
        Some(_) => None,
        None => possible_identities(&names, args.subject.is_some(), &args.usage),
    }
    .into_iter()
    .collect();
    agree(
        &Asked { names: &names, key: &request.key, warnings: &warnings },
        &authority,
        args.yes,
        output,
    )?;
    let now = Clock::System.now();
    let terms = Terms {
        role: args.role,
        usages: args.usage,
        lifetime: Duration::days(args.days.into()),
        subject: args.subject,
        revocation_list: args.crl_url,
    };
    let certificate = authority.sign_request(&request, &terms, now)?;
    Ledger::of(&args.ca).record(&certificate)?;
    write_certificate(&args.out, &certificate, args.replace)?;
    print_written_with(&[args.out], Some(&warnings), now, output)
}

/// What the certificate will say about whom it is for.
struct Asked<'a> {
    names: &'a [RequestedName],
    key: &'a str,
    warnings: &'a [String],
}

impl Asked<'_> {
    /// A line for each, so that none hides among the others.
    fn lines(&self) -> Vec<String> {
        let mut lines = vec!["The certificate will have these names:".to_owned()];
        lines.extend(self.names.iter().map(|name| format!("  {name}")));
        lines.push(format!("and this key: {}", self.key));
        lines.extend(self.warnings.iter().map(|text| format!("Warning: {text}")));
        lines
    }
}

/// Shows what is asked for, and wants a yes to it.
fn agree(
    asked: &Asked<'_>,
    authority: &Authority,
    yes: bool,
    output: &Output,
) -> Result<(), Failure> {
    if !yes && std::io::stdin().is_terminal() {
        let authority = &authority.description().subject;
        return confirm_below(&asked.lines(), &format!("Sign it as {authority}?"), false);
    }
    for warning in asked.warnings {
        output.warn(None, warning);
    }
    if yes {
        return Ok(());
    }
    let names: Vec<_> = asked.names.iter().map(ToString::to_string).collect();
    let (names, key) = (names.join(", "), asked.key);
    Err(Failure::usage_hint(
        format!("the certificate will have the names {names}, key {key}: signing it needs a yes"),
        "look at it, then give --yes",
    ))
}

/// What to think of before a system outside gets a certificate with names that the request chose. Who
/// only serves is let in by no server, whatever its names.
fn possible_identities(
    names: &[RequestedName],
    own_subject: bool,
    usages: &[Usage],
) -> Option<String> {
    if !usages.contains(&Usage::Client) {
        return None;
    }
    let chosen = |name: &&RequestedName| !(own_subject && name.kind == "CN");
    let known: Vec<_> = names
        .iter()
        .filter(chosen)
        .filter_map(|name| Some(format!("{name} ({})", name.rule()?)))
        .collect();
    if known.is_empty() {
        return None;
    }
    let other_subject = match names.iter().filter(chosen).any(|name| name.kind == "CN") {
        true => "; --subject replaces the CN",
        false => "",
    };
    Some(format!(
        "SSO servers and masters that trust this authority take these names for an identity, where a \
         rule in their settings fits: {}. For systems outside, make an authority of its own with a root \
         of its own (sso cert ca), which none of them trusts{other_subject}",
        known.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(kind: &str, value: &str) -> RequestedName {
        RequestedName { kind: kind.into(), value: value.into() }
    }

    #[test]
    fn names_that_could_be_an_identity_are_told() {
        let names = [
            name("CN", "alice"),
            name("O", "Example"),
            name("email", "alice@corp.example"),
            name("DNS", "sso-1.corp.example"),
            name("IP", "10.0.0.7"),
        ];
        let told = possible_identities(&names, false, &[Usage::Server, Usage::Client]).unwrap();
        for words in [
            "CN \"alice\" (subject_common_name), ",
            "email \"alice@corp.example\" (san_email), ",
            "DNS \"sso-1.corp.example\" (san_dns). ",
            "an authority of its own",
            "--subject replaces the CN",
        ] {
            assert!(told.contains(words), "{words}: {told}");
        }
        assert!(!told.contains("Example\"") && !told.contains("10.0.0.7"), "{told}");

        // The administrator chose the subject.
        let told = possible_identities(&names, true, &[Usage::Client]).unwrap();
        assert!(!told.contains("alice\"") && !told.contains("--subject"), "{told}");
        assert_eq!(possible_identities(&names[..2], true, &[Usage::Client]), None);
        // Nobody is let in with a certificate that is for servers alone.
        assert_eq!(possible_identities(&names, false, &[Usage::Server]), None);
    }

    #[test]
    fn a_line_for_each_name() {
        let names = [name("CN", "a\", O \"Corp"), name("DNS", "a.example")];
        let warnings = ["think".to_owned()];
        let lines = Asked { names: &names, key: "ECDSA P-256", warnings: &warnings }.lines();
        assert_eq!(
            lines,
            [
                "The certificate will have these names:",
                "  CN \"a\\\", O \\\"Corp\"",
                "  DNS \"a.example\"",
                "and this key: ECDSA P-256",
                "Warning: think",
            ]
        );
    }
}
