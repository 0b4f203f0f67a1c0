//! Writes applications in the format that `parse_applications` reads.

use super::applications::ApplicationDefinition;

/// A text that XML 1.0 cannot carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "application '{application}': {part} holds the character U+{character:04X}, which XML cannot carry"
)]
pub struct WriteError {
    application: String,
    part: &'static str,
    character: u32,
}

/// The text of a file with these applications, in their order, ending in a newline.
///
/// # Errors
/// When a name, label or text holds a control character.
pub fn write_applications(applications: &[ApplicationDefinition]) -> Result<String, WriteError> {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<sso>\n");
    for application in applications {
        Writer { application, text: &mut text }.application()?;
    }
    text.push_str("</sso>\n");
    Ok(text)
}

struct Writer<'a> {
    application: &'a ApplicationDefinition,
    text: &'a mut String,
}

impl Writer<'_> {
    fn application(&mut self) -> Result<(), WriteError> {
        let application = self.application;
        self.text.push_str("  <application name=\"");
        self.escaped("name", &application.name)?;
        self.text.push_str("\">\n");
        self.element("description", application.description.as_deref())?;
        self.element("contact", application.contact.as_deref())?;
        self.accounts("appUserAccount", application.user_accounts.as_deref())?;
        self.element("windowsAccount", application.windows_account.as_deref())?;
        self.accounts("appAdminAccount", application.administrator_accounts.as_deref())?;
        self.element("computer", application.computer.as_deref())?;
        let timeout = application.ticket_timeout.map(|minutes| minutes.to_string());
        self.element("appTicketTimeout", timeout.as_deref())?;
        for (ordinal, field) in application.fields.iter().enumerate() {
            self.text.push_str(&format!("    <field ordinal=\"{ordinal}\" label=\""));
            self.escaped("a label", &field.label)?;
            self.text.push_str(&format!("\" masked=\"{}\"", yes(field.masked)));
            if field.synchronized {
                self.text.push_str(" synchronized=\"yes\"");
            }
            self.text.push_str(" />\n");
        }
        self.flags();
        self.text.push_str("  </application>\n");
        Ok(())
    }

    fn flags(&mut self) {
        if self.application.flags.is_empty() {
            return;
        }
        self.text.push_str("    <flags");
        for (flag, on) in self.application.flags.iter() {
            self.text.push_str(&format!(" {}=\"{}\"", flag.as_str(), yes(on)));
        }
        self.text.push_str(" />\n");
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
                    return Err(WriteError {
                        application: self.application.name.clone(),
                        part,
                        character: u32::from(character),
                    });
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

    prop_compose! {
        fn application()(
            name in name(),
            description in option::of(text()),
            contact in option::of(text()),
            user_accounts in option::of(vec(account(), 1..4)),
            administrator_accounts in option::of(vec(account(), 0..4)),
            ticket_timeout in option::of(0_u32..=525_600),
            labels in vec((name(), any::<bool>()), 0..6),
            enabled in option::of(any::<bool>()),
        ) -> ApplicationDefinition {
            let mut flags = Flags::default();
            flags.set(Flag::ConfigStoreApp, true);
            if let Some(enabled) = enabled {
                flags.set(Flag::EnableApp, enabled);
            }
            let fields = labels.into_iter().enumerate().map(|(number, (label, masked))| {
                FieldDefinition { label: format!("{label}{number}"), masked, synchronized: false }
            });
            ApplicationDefinition {
                position: Position::START,
                name,
                description,
                contact,
                user_accounts,
                administrator_accounts,
                windows_account: None,
                computer: None,
                ticket_timeout,
                fields: fields.collect(),
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
        let bytes = include_bytes!("../../testdata/config-store-app.xml");
        let mut applications = parse_applications(bytes).unwrap();
        applications[0].contact = Some("a\u{1}".into());
        let error = write_applications(&applications).unwrap_err().to_string();
        assert!(error.contains("contact") && error.contains("U+0001"), "{error}");
    }
}
