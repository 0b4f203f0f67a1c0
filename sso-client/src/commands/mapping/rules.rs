//! Makes names of external users, and first passwords, out of accounts.

use clap::{Args, ValueEnum};
use sso_client::SecretText;

/// Longest name of an external user, in characters.
const MAX_NAME: usize = 256;

// No help on the variants: it would make the page of help twice as long.

/// What becomes of the domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum DomainPart {
    AsIs,
    Upper,
    Lower,
    #[default]
    None,
}

/// What becomes of the name behind the domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum UserPart {
    #[default]
    AsIs,
    Upper,
    Lower,
}

/// Where the password of a generated mapping comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum PasswordSource {
    #[default]
    None,
    ExternalUser,
    Rules,
    Prompt,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Name in the external system")]
pub(super) struct NameRules {
    /// The domain; none leaves the separator out too
    #[arg(long, value_enum, default_value_t, value_name = "CASE")]
    domain: DomainPart,
    /// The name behind the domain
    #[arg(long, value_enum, default_value_t, value_name = "CASE")]
    user: UserPart,
    /// Characters to leave out of domain and user
    #[arg(long, value_name = "CHARACTERS", default_value = "", hide_default_value = true)]
    remove: String,
    /// Text before everything
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prepend: String,
    /// Text between domain and user
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    separator: String,
    /// Text behind everything
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    append: String,
    /// Characters that are kept, from the first on
    #[arg(long, value_name = "N", default_value_t = MAX_NAME)]
    max_length: usize,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Password by rules")]
pub(super) struct PasswordRules {
    /// The domain; none leaves the separator out too
    #[arg(long, value_enum, default_value_t, value_name = "CASE")]
    password_domain: DomainPart,
    /// The name behind the domain
    #[arg(long, value_enum, default_value_t, value_name = "CASE")]
    password_user: UserPart,
    /// Characters to leave out of domain and user
    #[arg(long, value_name = "CHARACTERS", default_value = "", hide_default_value = true)]
    password_remove: String,
    /// Text before everything
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    password_prepend: String,
    /// Text between domain and user
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    password_separator: String,
    /// Text behind everything
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    password_append: String,
    /// Characters that are kept, from the first on
    #[arg(long, value_name = "N", default_value_t = MAX_NAME)]
    password_max_length: usize,
}

impl NameRules {
    /// The name in the external system of `DOMAIN\name`.
    pub(super) fn name(&self, account: &str) -> String {
        let (domain, user) = split(account);
        let domain = cased_domain(self.domain, domain);
        let user = cased_user(self.user, user);
        let parts = Parts { domain, user, remove: &self.remove };
        parts.join([&self.prepend, &self.separator, &self.append], self.max_length)
    }
}

impl PasswordRules {
    /// The first password of `DOMAIN\name`.
    pub(super) fn password(&self, account: &str) -> SecretText {
        let (domain, user) = split(account);
        let domain = cased_domain(self.password_domain, domain);
        let user = cased_user(self.password_user, user);
        let parts = Parts { domain, user, remove: &self.password_remove };
        let texts = [&self.password_prepend, &self.password_separator, &self.password_append];
        SecretText::new(parts.join(texts, self.password_max_length))
    }
}

/// Domain and name; a local account has no domain.
fn split(account: &str) -> (&str, &str) {
    account.split_once('\\').unwrap_or(("", account))
}

fn cased_domain(rule: DomainPart, domain: &str) -> Option<String> {
    match rule {
        DomainPart::AsIs => Some(domain.to_owned()),
        DomainPart::Upper => Some(domain.to_uppercase()),
        DomainPart::Lower => Some(domain.to_lowercase()),
        DomainPart::None => None,
    }
    .filter(|domain| !domain.is_empty())
}

fn cased_user(rule: UserPart, user: &str) -> String {
    match rule {
        UserPart::AsIs => user.to_owned(),
        UserPart::Upper => user.to_uppercase(),
        UserPart::Lower => user.to_lowercase(),
    }
}

struct Parts<'r> {
    domain: Option<String>,
    user: String,
    remove: &'r str,
}

impl Parts<'_> {
    fn join(self, [prepend, separator, append]: [&String; 3], max_length: usize) -> String {
        let kept = |text: String| -> String {
            text.chars().filter(|&character| !self.remove.contains(character)).collect()
        };
        let before = self.domain.map(|domain| kept(domain) + separator).unwrap_or_default();
        let whole = format!("{prepend}{before}{}{append}", kept(self.user));
        whole.chars().take(max_length).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> NameRules {
        NameRules { max_length: MAX_NAME, ..NameRules::default() }
    }

    #[test]
    fn the_user_alone_is_the_default() {
        assert_eq!(rules().name(r"Corp\Anna.Smith"), "Anna.Smith");
        assert_eq!(rules().name("local"), "local");
    }

    #[test]
    fn the_whole_pipeline() {
        let rules = NameRules {
            domain: DomainPart::Lower,
            user: UserPart::Upper,
            remove: ". p".into(),
            prepend: "<".into(),
            separator: "-".into(),
            append: ">".into(),
            ..rules()
        };
        assert_eq!(rules.name(r"Corp\Anna P.Smith"), "<cor-ANNAPSMITH>");
        let short = NameRules { max_length: 8, ..rules };
        assert_eq!(short.name(r"Corp\Anna P.Smith"), "<cor-ANN");
    }

    #[test]
    fn no_domain_has_no_separator() {
        let rules = NameRules { domain: DomainPart::AsIs, separator: "_".into(), ..rules() };
        assert_eq!(rules.name(r"CORP\bo"), "CORP_bo");
        assert_eq!(rules.name("bo"), "bo");
    }

    #[test]
    fn lengths_count_characters() {
        let rules = NameRules { max_length: 2, ..rules() };
        assert_eq!(rules.name(r"D\äöü"), "äö");
    }

    #[test]
    fn a_password_by_the_same_rules() {
        let rules = PasswordRules {
            password_user: UserPart::Lower,
            password_append: "!1".into(),
            password_max_length: 6,
            ..PasswordRules::default()
        };
        // Expose: compared with what the rules make.
        assert_eq!(rules.password(r"D\Anna").expose(), "anna!1");
    }
}
