//! Writes what the parsers read: applications, mappings, global information.

use super::{
    applications::ApplicationDefinition, global_info::GlobalInfoUpdate, mappings::MappingDefinition,
};

/// A text that XML 1.0 cannot carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {part} holds the character U+{character:04X}, which XML cannot carry")]
pub struct WriteError {
    subject: String,
    part: &'static str,
    character: u32,
}

const START: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<sso>\n";
const END: &str = "</sso>\n";

/// The text of a file with these applications, in their order, ending in a newline.
///
/// # Errors
/// When a name, label or text holds a control character.
pub fn write_applications(applications: &[ApplicationDefinition]) -> Result<String, WriteError> {
    let mut writer = Writer::new();
    for application in applications {
        writer.subject = format!("application '{}'", application.name);
        writer.application(application)?;
    }
    Ok(writer.finish())
}

/// The text of a file with these mappings, in their order, ending in a newline. An account without a
/// domain gets an empty `<windowsDomain>`.
///
/// # Errors
/// When an account, an application or an external user holds a control character.
pub fn write_mappings(mappings: &[MappingDefinition]) -> Result<String, WriteError> {
    let mut writer = Writer::new();
    for mapping in mappings {
        writer.subject = format!("mapping of '{}'", mapping.account);
        writer.mapping(mapping)?;
    }
    Ok(writer.finish())
}

/// The text of a file with what is given of the global information, ending in a newline.
///
/// # Errors
/// When an account or the name of the secret server holds a control character.
pub fn write_global_info(info: &GlobalInfoUpdate) -> Result<String, WriteError> {
    let mut writer = Writer::new();
    "global information".clone_into(&mut writer.subject);
    writer.global_info(info)?;
    Ok(writer.finish())
}

struct Writer {
    text: String,
    /// What is being written, for errors.
    subject: String,
}

impl Writer {
    fn new() -> Self {
        Self { text: START.to_owned(), subject: String::new() }
    }

    fn finish(mut self) -> String {
        self.text.push_str(END);
        self.text
    }

    fn application(&mut self, application: &ApplicationDefinition) -> Result<(), WriteError> {
        self.text.push_str("  <application name=\"");
        self.escaped("name", &application.name)?;
        self.text.push_str("\">\n");
        self.element("description", application.description.as_deref())?;
        self.element("contact", application.contact.as_deref())?;
        self.accounts("appUserAccount", application.user_accounts.as_deref())?;
        self.element("windowsAccount", application.windows_account.as_deref())?;
        self.accounts("appAdminAccount", application.administrator_accounts.as_deref())?;
        self.element("computer", application.computer.as_deref())?;
        self.number("appTicketTimeout", application.ticket_timeout)?;
        for (ordinal, field) in application.fields.iter().enumerate() {
            self.text.push_str(&format!("    <field ordinal=\"{ordinal}\" label=\""));
            self.escaped("a label", &field.label)?;
            self.text.push_str(&format!("\" masked=\"{}\"", yes(field.masked)));
            if field.synchronized {
                self.text.push_str(" synchronized=\"yes\"");
            }
            self.text.push_str(" />\n");
        }
        self.flags(application);
        self.text.push_str("  </application>\n");
        Ok(())
    }

    fn mapping(&mut self, mapping: &MappingDefinition) -> Result<(), WriteError> {
        let (domain, user) = mapping.account.split_once('\\').unwrap_or(("", &mapping.account));
        self.text.push_str("  <mapping>\n");
        self.element("windowsDomain", Some(domain))?;
        self.element("windowsUserId", Some(user))?;
        self.element("externalApplication", Some(&mapping.application))?;
        self.element("externalUserId", Some(&mapping.external_user))?;
        self.text.push_str("  </mapping>\n");
        Ok(())
    }

    fn global_info(&mut self, info: &GlobalInfoUpdate) -> Result<(), WriteError> {
        self.text.push_str("  <globalInfo>\n");
        self.accounts("ssoAdminAccount", info.sso_administrators.as_deref())?;
        self.accounts("ssoAffiliateAdminAccount", info.affiliate_administrators.as_deref())?;
        self.element("secretServer", info.secret_server.as_deref())?;
        self.number("auditDeletedApps", info.audit_deleted_applications)?;
        self.number("auditDeletedMappings", info.audit_deleted_mappings)?;
        self.number("auditCredentialLookups", info.audit_credential_lookups)?;
        self.number("ticketTimeout", info.ticket_timeout)?;
        self.number("credCacheTimeout", info.credential_cache_timeout)?;
        self.text.push_str("  </globalInfo>\n");
        Ok(())
    }

    fn flags(&mut self, application: &ApplicationDefinition) {
        if application.flags.is_empty() {
            return;
        }
        self.text.push_str("    <flags");
        for (flag, on) in application.flags.iter() {
            self.text.push_str(&format!(" {}=\"{}\"", flag.as_str(), yes(on)));
        }
        self.text.push_str(" />\n");
    }

    fn number(&mut self, name: &'static str, value: Option<u32>) -> Result<(), WriteError> {
        self.element(name, value.map(|number| number.to_string()).as_deref())
    }

    fn element(&mut self, name: &'static str, value: Option<&str>) -> Result<(), WriteError> {
        let Some(value) = value else { return Ok(()) };
        self.text.push_str(&format!("    <{name}>"));
        self.escaped(name, value)?;
        self.text.push_str(&format!("</{name}>\n"));
        Ok(())
    }

    fn accounts(&mut self, name: &'static str, value: Option<&[String]>) -> Result<(), WriteError> {
        self.element(name, value.map(|accounts| accounts.join(";")).as_deref())
    }

    fn escaped(&mut self, part: &'static str, value: &str) -> Result<(), WriteError> {
        for character in value.chars() {
            match character {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '"' => self.text.push_str("&quot;"),
                // A reader would turn these into plain spaces or newlines.
                '\t' | '\n' | '\r' => {
                    self.text.push_str(&format!("&#{};", u32::from(character)));
                }
                ' '..='\u{FFFD}' | '\u{10000}'.. => self.text.push(character),
                '\0'..' ' | '\u{FFFE}'..='\u{FFFF}' => {
                    let subject = self.subject.clone();
                    return Err(WriteError { subject, part, character: u32::from(character) });
                }
            }
        }
        Ok(())
    }
}

fn yes(on: bool) -> &'static str {
    if on { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::xml::{FieldDefinition, Flag, Flags, Position, parse_applications};

    /// Text that XML can carry and that has no white space around it.
    fn text() -> impl Strategy<Value = String> {
        r#"[\PC<>&"'\t\n]{0,20}"#.prop_map(|text| text.trim().to_owned())
    }

    fn name() -> impl Strategy<Value = String> {
        "[A-Za-z][A-Za-z0-9.&<>\"' ]{0,15}[A-Za-z0-9]"
    }

    fn account() -> impl Strategy<Value = String> {
        r"[A-Z]{1,5}\\[A-Za-z][A-Za-z &]{0,10}[a-z]"
    }

    /// Flags that do not exclude each other, whatever the rest of the application.
    fn flags() -> impl Strategy<Value = Flags> {
        let alone = [Flag::GroupApp, Flag::ConfigStoreApp];
        let each = Flag::ALL.iter().filter(move |flag| !alone.contains(flag));
        let given = vec(option::of(any::<bool>()), Flag::ALL.len());
        (given, option::of(0_usize..2)).prop_map(move |(given, kind)| {
            let mut flags = Flags::default();
            for (&flag, value) in each.clone().zip(given) {
                if let Some(on) = value {
                    flags.set(flag, on && kind.is_none());
                }
            }
            if let Some(kind) = kind {
                flags.set(alone[kind], true);
            }
            flags
        })
    }

    fn fields() -> impl Strategy<Value = Vec<FieldDefinition>> {
        (vec((name(), any::<bool>()), 0..6), any::<usize>()).prop_map(|(labels, synchronized)| {
            let fields = labels.into_iter().enumerate().map(|(number, (label, masked))| {
                let label = format!("{label}{number}");
                FieldDefinition { label, masked, synchronized: number == synchronized % 7 }
            });
            fields.collect()
        })
    }

    prop_compose! {
        fn application()(
            name in name(),
            texts in (option::of(text()), option::of(text())),
            host_group in any::<bool>(),
            user_accounts in option::of(vec(account(), 1..4)),
            windows_account in option::of(account()),
            administrator_accounts in option::of(vec(account(), 0..4)),
            computer in option::of("[a-z][a-z0-9.]{0,20}"),
            ticket_timeout in option::of(0_u32..=525_600),
            fields in fields(),
            flags in flags(),
        ) -> ApplicationDefinition {
            ApplicationDefinition {
                position: Position::START,
                name,
                description: texts.0,
                contact: texts.1,
                user_accounts: if host_group { None } else { user_accounts },
                administrator_accounts,
                windows_account: if host_group { windows_account } else { None },
                computer,
                ticket_timeout,
                fields,
                flags,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(application in application()) {
            let text = write_applications(std::slice::from_ref(&application)).unwrap();
            let mut read = parse_applications(text.as_bytes()).unwrap();
            prop_assert_eq!(read[0].position.line, 3);
            read[0].position = Position::START;
            prop_assert_eq!(read, vec![application]);
        }
    }

    #[test]
    fn a_control_character_is_refused() {
        let bytes = include_bytes!("../../tests/data/4-config-store-app.xml");
        let mut applications = parse_applications(bytes).unwrap();
        applications[0].contact = Some("a\u{1}".into());
        let error = write_applications(&applications).unwrap_err().to_string();
        assert!(error.contains("contact") && error.contains("U+0001"), "{error}");
    }
}
