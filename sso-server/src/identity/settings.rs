//! Section `[identity]` of the settings: the sources of identities, each with its own domains.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jsonwebtoken::Algorithm;
use serde::Deserialize;
use sso_core::{
    clock::Clock,
    peer::{CertificatePart, CertificateRule, RuleError},
    settings::{SettingsError, resolve},
    tls::{ListSource, RevocationPolicy, TlsVersion, TrustSettings, one_or_more},
};

use super::{
    AccountRule, GroupsClaim, Identity, KeyPlace, KeySource, SourceDomain, TokenRules, TokenSource,
    UnixRule,
};
use crate::groups::Groups;

/// The largest difference of clocks that can be allowed for.
const LEEWAY_MAX: u64 = 300;

/// Who clients are.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentitySection {
    #[serde(default)]
    domains: Vec<String>,
    groups_file: Option<PathBuf>,
    #[serde(default)]
    certificate: Vec<CertificateSection>,
    #[serde(default)]
    token: Vec<TokenSection>,
    #[serde(default)]
    unix: Vec<UnixSection>,
}

// `deny_unknown_fields` and `flatten` do not go together, so the parts of a rule stand here again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateSection {
    san_uri: Option<String>,
    san_email: Option<String>,
    san_dns: Option<String>,
    subject_common_name: Option<String>,
    #[serde(alias = "fingerprint")]
    thumbprint: Option<String>,
    account: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenSection {
    issuer: String,
    audiences: Vec<String>,
    #[serde(default = "default_algorithms")]
    algorithms: Vec<String>,
    jwks_file: Option<PathBuf>,
    jwks_url: Option<String>,
    ca: Option<PathBuf>,
    #[serde(default, deserialize_with = "one_or_more")]
    crl: Vec<ListSource>,
    revocation: Option<RevocationPolicy>,
    minimum_version: Option<TlsVersion>,
    domain: String,
    #[serde(default = "default_account_claim")]
    account_claim: String,
    groups_claim: Option<String>,
    groups_domain: Option<String>,
    #[serde(default = "default_leeway")]
    leeway_seconds: u64,
    max_lifetime_seconds: Option<u64>,
}

fn default_algorithms() -> Vec<String> {
    vec!["ES256".to_owned(), "RS256".to_owned()]
}

fn default_account_claim() -> String {
    "preferred_username".to_owned()
}

fn default_leeway() -> u64 {
    60
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UnixSection {
    user: Option<String>,
    uid: Option<u32>,
    account: Option<String>,
    domain: Option<String>,
}

/// What is wrong with which key below `identity`.
struct Wrong(String, String);

/// Which domain belongs to which source: canonical domain and key of the settings.
#[derive(Default)]
struct Owners(BTreeMap<String, String>);

impl Owners {
    /// The same source may claim a domain again.
    fn claim(&mut self, domain: &str, source: &str) -> Result<(), Wrong> {
        let owner = self.0.entry(domain.to_owned()).or_insert_with(|| source.to_owned());
        if owner == source {
            return Ok(());
        }
        let why = format!(
            "the domain {domain} belongs to {owner} already, and {source} would assert accounts of \
             it too: give every source a domain of its own"
        );
        Err(Wrong(source.to_owned(), why))
    }
}

impl IdentitySection {
    /// The sources, with relative paths starting at `base`; `path` is the file that errors name. Key
    /// sets may come from where any local user may publish them only with `allow_development`.
    ///
    /// # Errors
    /// Names the key and what to do; two sources of the same domain are named both.
    pub fn build(
        self,
        base: &Path,
        path: &Path,
        allow_development: bool,
    ) -> Result<Identity, SettingsError> {
        let refused = |Wrong(key, why)| SettingsError::refused(path, key, why);
        let file = self.groups_file.as_ref().map(|file| resolve(base, file));
        let groups = Groups::load(file.as_deref())?;
        let mut owners = Owners::default();
        let domains = domains(&self.domains, &mut owners).map_err(refused)?;
        let rules = certificates(self.certificate, &domains).map_err(refused)?;
        let place = Place { base, allow_development };
        let tokens = tokens(&self.token, place, &mut owners).map_err(refused)?;
        let unix = unix(self.unix, &mut owners).map_err(refused)?;
        Ok(Identity::new(rules, domains, groups).with_tokens(tokens, Clock::System).with_unix(unix))
    }
}

fn domains(texts: &[String], owners: &mut Owners) -> Result<BTreeSet<String>, Wrong> {
    let key = "identity.domains";
    let mut domains = BTreeSet::new();
    for text in texts {
        let domain = SourceDomain::parse(text).map_err(|error| Wrong(key.into(), error.message))?;
        owners.claim(domain.key(), key)?;
        domains.insert(domain.key().to_owned());
    }
    Ok(domains)
}

fn certificates(
    sections: Vec<CertificateSection>,
    domains: &BTreeSet<String>,
) -> Result<Vec<AccountRule>, Wrong> {
    let mut rules = Vec::with_capacity(sections.len());
    for (number, section) in sections.into_iter().enumerate() {
        let key = format!("identity.certificate[{number}]");
        let (account, rule) =
            section.split().map_err(|error| Wrong(key.clone(), error.to_string()))?;
        let rule = AccountRule::new(rule, &account, domains)
            .map_err(|error| Wrong(format!("{key}.account"), error.message))?;
        rules.push(rule);
    }
    Ok(rules)
}

impl CertificateSection {
    fn split(self) -> Result<(String, CertificateRule), RuleError> {
        use CertificatePart as Part;
        let rule = CertificateRule::new([
            (Part::SanUri, self.san_uri),
            (Part::SanEmail, self.san_email),
            (Part::SanDns, self.san_dns),
            (Part::SubjectCommonName, self.subject_common_name),
            (Part::Thumbprint, self.thumbprint),
        ])?;
        Ok((self.account, rule))
    }
}

/// Where relative paths start, and whether material made for development is good enough.
#[derive(Clone, Copy)]
struct Place<'s> {
    base: &'s Path,
    allow_development: bool,
}

fn tokens(
    sections: &[TokenSection],
    place: Place<'_>,
    owners: &mut Owners,
) -> Result<Vec<Arc<TokenSource>>, Wrong> {
    let mut sources: Vec<Arc<TokenSource>> = Vec::with_capacity(sections.len());
    for (number, section) in sections.iter().enumerate() {
        let key = format!("identity.token[{number}]");
        let wrong = |(name, why)| Wrong(format!("{key}.{name}"), why);
        let source = section.source(place).map_err(wrong)?;
        if let Some(other) = sources.iter().position(|known| known.issuer() == section.issuer) {
            let why = format!("is the issuer of identity.token[{other}] already");
            return Err(Wrong(format!("{key}.issuer"), why));
        }
        for domain in source.domains() {
            owners.claim(domain, &key)?;
        }
        sources.push(source);
    }
    Ok(sources)
}

/// The last part of a key, and what is wrong there.
type Part = (&'static str, String);

impl TokenSection {
    fn source(&self, place: Place<'_>) -> Result<Arc<TokenSource>, Part> {
        self.check()?;
        let domain = |key, text: &str| SourceDomain::parse(text).map_err(|e| (key, e.message));
        let groups = match &self.groups_claim {
            Some(claim) => {
                let text = self.groups_domain.as_ref().unwrap_or(&self.domain);
                let domain = domain("groups_domain", text)?;
                Some(GroupsClaim { claim: claim.clone(), domain })
            }
            None => None,
        };
        let rules = TokenRules {
            issuer: self.issuer.clone(),
            audiences: self.audiences.iter().cloned().collect(),
            domain: domain("domain", &self.domain)?,
            account_claim: self.account_claim.clone(),
            groups,
            leeway: Duration::from_secs(self.leeway_seconds),
            max_lifetime: self.max_lifetime_seconds.map(Duration::from_secs),
        };
        Ok(TokenSource::new(rules, self.keys(place)?))
    }

    fn check(&self) -> Result<(), Part> {
        if self.issuer.is_empty() {
            return Err(("issuer", "write what tokens have in iss".to_owned()));
        }
        if self.audiences.is_empty() || self.audiences.iter().any(String::is_empty) {
            let why = "name what tokens for this service have in aud; without it tokens meant for \
                       others would do";
            return Err(("audiences", why.to_owned()));
        }
        if self.account_claim.is_empty() {
            return Err(("account_claim", "write the name of a claim".to_owned()));
        }
        if self.leeway_seconds > LEEWAY_MAX {
            return Err(("leeway_seconds", format!("write 0 to {LEEWAY_MAX}")));
        }
        if self.groups_domain.is_some() && self.groups_claim.is_none() {
            return Err((
                "groups_domain",
                "is for the groups of groups_claim: name that".to_owned(),
            ));
        }
        Ok(())
    }

    fn keys(&self, from: Place<'_>) -> Result<Arc<KeySource>, Part> {
        let base = from.base;
        let algorithms = self.algorithms()?;
        let (key, place) = match (&self.jwks_file, &self.jwks_url) {
            (Some(file), None) => {
                if let Some(key) = self.key_of_trust() {
                    return Err((key, "is for jwks_url alone".to_owned()));
                }
                ("jwks_file", KeyPlace::File(resolve(base, file)))
            }
            (None, Some(url)) => {
                let trust = self.trust(base)?;
                let place = KeyPlace::web(url, trust, from.allow_development);
                ("jwks_url", place.map_err(|why| ("jwks_url", why))?)
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(("jwks_file", "name either jwks_file or jwks_url".to_owned()));
            }
        };
        KeySource::new(place, algorithms, Clock::System).map_err(|why| (key, why))
    }

    /// The first key that says whom to trust.
    fn key_of_trust(&self) -> Option<&'static str> {
        [
            ("ca", self.ca.is_some()),
            ("crl", !self.crl.is_empty()),
            ("revocation", self.revocation.is_some()),
            ("minimum_version", self.minimum_version.is_some()),
        ]
        .into_iter()
        .find_map(|(key, given)| given.then_some(key))
    }

    /// Whose certificate the identity provider may have.
    fn trust(&self, base: &Path) -> Result<Option<TrustSettings>, Part> {
        let Some(ca) = &self.ca else {
            return match self.key_of_trust() {
                None => Ok(None),
                Some(key) => Err((key, "needs ca, the authorities to trust".to_owned())),
            };
        };
        let trust = TrustSettings {
            crl: self.crl.clone(),
            revocation: self.revocation,
            minimum_version: self.minimum_version.unwrap_or_default(),
            ..TrustSettings::new(ca)
        };
        Ok(Some(trust.resolve(base)))
    }

    fn algorithms(&self) -> Result<Vec<Algorithm>, Part> {
        let why = |name: &str| {
            let why = format!(
                "{name:?} is none of ES256, ES384, RS256, RS384, RS512, PS256, PS384, PS512, EdDSA: \
                 only signatures that the issuer alone can make are taken"
            );
            ("algorithms", why)
        };
        let asymmetric = |name: &String| {
            let algorithm = name.parse::<Algorithm>().map_err(|_| why(name))?;
            let secret = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
            if secret.contains(&algorithm) { Err(why(name)) } else { Ok(algorithm) }
        };
        if self.algorithms.is_empty() {
            return Err(("algorithms", "name one at least, or leave the key out".to_owned()));
        }
        self.algorithms.iter().map(asymmetric).collect()
    }
}

fn unix(sections: Vec<UnixSection>, owners: &mut Owners) -> Result<Vec<UnixRule>, Wrong> {
    let mut rules = Vec::with_capacity(sections.len());
    for (number, section) in sections.into_iter().enumerate() {
        let key = format!("identity.unix[{number}]");
        let rule = section.rule().map_err(|why| Wrong(key, why))?;
        owners.claim(rule.domain(), "identity.unix")?;
        rules.push(rule);
    }
    Ok(rules)
}

impl UnixSection {
    fn rule(self) -> Result<UnixRule, String> {
        let single =
            |user, account: &str| UnixRule::single(user, account).map_err(|error| error.message);
        match (self.user, self.uid, self.account, self.domain) {
            (Some(user), None, Some(account), None) => single(Ok(user), &account),
            (None, Some(uid), Some(account), None) => single(Err(uid), &account),
            (None, None, None, Some(domain)) => {
                SourceDomain::parse(&domain).map(UnixRule::Everyone).map_err(|error| error.message)
            }
            _ => Err("write user and account, or uid and account, or domain alone".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

    const GOOD: &str = r#"
domains = ["DEV"]
[[certificate]]
san_uri = "sso://DEV/*"
account = 'DEV\*'
[[token]]
issuer = "https://id.example"
audiences = ["sso"]
jwks_file = "jwks.json"
domain = "IDP"
groups_claim = "groups"
groups_domain = "IDP Groups"
[[token]]
issuer = "https://other.example"
audiences = ["sso"]
jwks_url = "http://127.0.0.1:1/jwks"
domain = "OTHER"
[[unix]]
user = "robot"
account = 'HOST\service'
[[unix]]
uid = 7
account = 'HOST\seven'
[[unix]]
domain = "HOST"
"#;

    fn build(text: &str) -> Result<Identity, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("jwks.json"), KEYS).unwrap();
        let section: IdentitySection = toml::from_str(text).map_err(|error| error.to_string())?;
        let file = folder.path().join("sso-server.toml");
        section.build(folder.path(), &file, false).map_err(|error| error.to_string())
    }

    #[test]
    fn all_sources_together() {
        let identity = build(GOOD).unwrap();
        assert!(identity.has_tokens() && identity.has_unix());
    }

    #[test]
    fn no_domain_has_two_sources() {
        for (from, to, first, second) in [
            ("\"IDP\"", "\"dev\"", "identity.domains", "identity.token[0]"),
            ("\"IDP Groups\"", "\"DEV\"", "identity.domains", "identity.token[0]"),
            ("\"OTHER\"", "\"idp\"", "identity.token[0]", "identity.token[1]"),
            ("\"OTHER\"", "\"IDP GROUPS\"", "identity.token[0]", "identity.token[1]"),
            ("\"HOST\"", "\"Other\"", "identity.token[1]", "identity.unix"),
            ("HOST\\seven", "DEV\\seven", "identity.domains", "identity.unix"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            let error = build(&text).map(drop).unwrap_err();
            assert!(error.contains(first) && error.contains(second), "{to}: {error}");
        }
    }

    #[test]
    fn each_fault_is_named() {
        let sources = |line: &str| format!("domain = \"OTHER\"\n{line}\n");
        for (from, to, named) in [
            ("https://other.example", "https://id.example", "identity.token[1].issuer"),
            ("https://other.example", "", "identity.token[1].issuer"),
            ("[\"sso\"]\njwks_url", "[]\njwks_url", "identity.token[1].audiences"),
            ("[\"sso\"]\njwks_url", "[\"\"]\njwks_url", "identity.token[1].audiences"),
            ("http://127.0.0.1:1", "http://id.example", "identity.token[1].jwks_url"),
            ("http://127.0.0.1:1", "http://127.0.0.1:8080", "identity.token[1].jwks_url"),
            ("http://127.0.0.1:1", "https://id.example", "ca"),
            ("jwks.json", "none.json", "identity.token[0].jwks_file"),
            ("\"jwks.json\"", "\"jwks.json\"\ncrl = \"a.crl\"", "identity.token[0].crl"),
            (":1/jwks\"", ":1/jwks\"\ncrl = [\"http://pki/a.crl\"]", "identity.token[1].crl"),
            (":1/jwks\"", ":1/jwks\"\nrevocation = \"off\"", "identity.token[1].revocation"),
            (
                ":1/jwks\"",
                ":1/jwks\"\nminimum_version = \"1.2\"",
                "identity.token[1].minimum_version",
            ),
            ("jwks_file = \"jwks.json\"\n", "", "identity.token[0].jwks_file"),
            ("groups_claim = \"groups\"\n", "", "identity.token[0].groups_domain"),
            ("\"OTHER\"", "\"A\\\\B\"", "identity.token[1].domain"),
            ("user = \"robot\"\n", "", "identity.unix[0]"),
            ("uid = 7\n", "uid = 7\nuser = \"x\"\n", "identity.unix[1]"),
            ("uid = 7\n", "uid = 7\ndomain = \"HOST\"\n", "identity.unix[1]"),
            ("HOST\\seven", "seven", "identity.unix[1]"),
            ("uid = 7\n", "gid = 7\n", "gid"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            let error = build(&text).map(drop).unwrap_err();
            assert!(error.contains(named), "{named}: {error}");
        }
        for (line, named) in [
            ("algorithms = []", "algorithms"),
            ("algorithms = [\"HS256\"]", "algorithms"),
            ("algorithms = [\"ES256\", \"HS512\"]", "HS512"),
            ("algorithms = [\"none\"]", "none"),
            ("leeway_seconds = 301", "leeway_seconds"),
            ("account_claim = \"\"", "account_claim"),
            ("jwks_file = \"jwks.json\"", "jwks_file"),
            ("ca = \"ca.pem\"", "ca"),
        ] {
            let text = GOOD.replace("domain = \"OTHER\"\n", &sources(line));
            let error = build(&text).map(drop).unwrap_err();
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
