//! Files that create or update applications.

use super::{
    flags::{Flag, Flags},
    reader::{Element, Position, XmlError, parse_document},
};

/// The type of an application; it follows from flags and elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Credentials of single users.
    Individual,
    /// Credentials shared by groups.
    Group,
    /// External accounts that act as one directory account.
    HostGroup,
    /// Configurations.
    ConfigStore,
    /// A password-sync adapter.
    Adapter,
    /// A group of password-sync adapters.
    GroupAdapter,
}

/// One `<application>` element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationDefinition {
    /// Where it starts in its file.
    pub position: Position,
    /// Name, case preserved.
    pub name: String,
    /// `None` where the file has no such element; the same for what follows.
    pub description: Option<String>,
    /// Free text, often a mail address.
    pub contact: Option<String>,
    /// `DOMAIN\name` each, in the order of the file.
    pub user_accounts: Option<Vec<String>>,
    /// `DOMAIN\name` each.
    pub administrator_accounts: Option<Vec<String>>,
    /// The account that the external accounts of a host group act as.
    pub windows_account: Option<String>,
    /// The host of an adapter.
    pub computer: Option<String>,
    /// Minutes, 0 to 525600; 0 = the value of the system.
    pub ticket_timeout: Option<u32>,
    /// By ordinal, without gaps. Empty in files that update.
    pub fields: Vec<FieldDefinition>,
    /// What `<flags>` gives.
    pub flags: Flags,
}

/// One `<field>` element; its place in the list is its ordinal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDefinition {
    /// Unique regardless of case.
    pub label: String,
    /// Hidden from administrators.
    pub masked: bool,
    /// Carries the password in password synchronisation.
    pub synchronized: bool,
}

impl ApplicationDefinition {
    /// The type, from flags and elements.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let adapter = self.computer.is_some()
            || self.flags.iter().any(|(flag, on)| on && flag.is_of_adapters());
        let on = |flag| self.flags.is_on(flag);
        if adapter {
            match on(Flag::GroupAdapter) || on(Flag::GroupApp) {
                true => Kind::GroupAdapter,
                false => Kind::Adapter,
            }
        } else if on(Flag::ConfigStoreApp) {
            Kind::ConfigStore
        } else if self.windows_account.is_some()
            || (on(Flag::GroupApp) && on(Flag::HostInitiatedSso))
        {
            Kind::HostGroup
        } else if on(Flag::GroupApp) {
            Kind::Group
        } else {
            Kind::Individual
        }
    }
}

/// Parses a file of applications, for creating and for updating.
///
/// # Errors
/// The first fault, with line and column: malformed XML, an unknown element or attribute, a part
/// that stands twice, fields with gaps, flags that exclude each other.
pub fn parse_applications(bytes: &[u8]) -> Result<Vec<ApplicationDefinition>, XmlError> {
    let root = parse_document(bytes)?;
    require_root(&root, "sso")?;
    let mut applications: Vec<ApplicationDefinition> = Vec::new();
    for child in root.children() {
        if !child.is("application") {
            return Err(child.error(foreign(child)));
        }
        let application = parse_application(child)?;
        let name = application.name.to_lowercase();
        if applications.iter().any(|earlier| earlier.name.to_lowercase() == name) {
            return Err(child.error(format!("application '{}' stands twice", application.name)));
        }
        applications.push(application);
    }
    match applications.is_empty() {
        true => Err(root.error("the file holds no <application>")),
        false => Ok(applications),
    }
}

pub(super) fn require_root(root: &Element, name: &str) -> Result<(), XmlError> {
    if !root.is(name) {
        let message = format!("the top element is <{}>; it must be <{name}>", root.name());
        return Err(root.error(message));
    }
    root.require_no_attributes()?;
    root.require_no_text()
}

fn foreign(element: &Element) -> String {
    let hint = if element.is("mapping") {
        " (this is a file of mappings)"
    } else if element.is("globalInfo") {
        " (this is a file of global information: sso system update --file)"
    } else {
        ""
    };
    format!("<{}> stands where only <application> may{hint}", element.name())
}

fn parse_application(element: &Element) -> Result<ApplicationDefinition, XmlError> {
    element.require_no_text()?;
    let mut application = ApplicationDefinition {
        position: element.position,
        name: parse_name(element)?,
        description: None,
        contact: None,
        user_accounts: None,
        administrator_accounts: None,
        windows_account: None,
        computer: None,
        ticket_timeout: None,
        fields: Vec::new(),
        flags: Flags::default(),
    };
    let mut fields = Vec::new();
    let mut flags: Option<Flags> = None;
    for child in element.children() {
        match child.name().to_ascii_lowercase().as_str() {
            "description" => once(child, &mut application.description, text)?,
            "contact" => once(child, &mut application.contact, text)?,
            "appuseraccount" | "usergroup" => {
                once(child, &mut application.user_accounts, accounts)?;
            }
            "appadminaccount" | "appadmingroup" => {
                once(child, &mut application.administrator_accounts, accounts)?;
            }
            "windowsaccount" => once(child, &mut application.windows_account, text)?,
            "computer" => once(child, &mut application.computer, text)?,
            "apptickettimeout" => {
                once(child, &mut application.ticket_timeout, |child| number(child, 525_600))?;
            }
            "field" => fields.push(parse_field(child)?),
            "flags" => once(child, &mut flags, Flags::parse)?,
            _ => {
                let message = format!("unknown element <{}> in <application>", child.name());
                return Err(child.error(message));
            }
        }
    }
    application.fields = arrange(element, fields)?;
    application.flags = flags.unwrap_or_default();
    require_compatible(element, &application)?;
    Ok(application)
}

fn parse_name(element: &Element) -> Result<String, XmlError> {
    let mut name = None;
    for attribute in &element.attributes {
        match attribute.is("name") {
            true => name = Some(attribute),
            false => return Err(attribute.unknown(element)),
        }
    }
    let Some(attribute) = name else {
        return Err(element.error("<application> has no attribute 'name'"));
    };
    match attribute.value.trim() {
        "" => Err(attribute.error("the name is empty")),
        name => Ok(name.to_owned()),
    }
}

/// Fills `slot` with what `parse` makes of the element; a second one of the kind is an error.
pub(super) fn once<T>(
    element: &Element,
    slot: &mut Option<T>,
    parse: impl FnOnce(&Element) -> Result<T, XmlError>,
) -> Result<(), XmlError> {
    if slot.is_some() {
        return Err(element.error(format!("<{}> stands twice", element.name())));
    }
    *slot = Some(parse(element)?);
    Ok(())
}

pub(super) fn text(element: &Element) -> Result<String, XmlError> {
    element.plain_text().map(str::to_owned)
}

/// Accounts separated by semicolons.
pub(super) fn accounts(element: &Element) -> Result<Vec<String>, XmlError> {
    let accounts = element.plain_text()?.split(';').map(str::trim);
    Ok(accounts.filter(|account| !account.is_empty()).map(str::to_owned).collect())
}

pub(super) fn number(element: &Element, most: u32) -> Result<u32, XmlError> {
    match element.plain_text()?.parse::<u32>() {
        Ok(number) if number <= most => Ok(number),
        Ok(_) | Err(_) => {
            Err(element
                .error(format!("<{}> must be a whole number from 0 to {most}", element.name())))
        }
    }
}

fn parse_field(element: &Element) -> Result<(u32, FieldDefinition, &Element), XmlError> {
    element.exact_text()?;
    element.require_no_text()?;
    let (mut ordinal, mut label) = (None, None);
    let (mut masked, mut synchronized) = (false, false);
    for attribute in &element.attributes {
        match attribute.name.to_ascii_lowercase().as_str() {
            "ordinal" => match attribute.value.trim().parse::<u32>() {
                Ok(number) => ordinal = Some(number),
                Err(_) => return Err(attribute.error("'ordinal' must be a whole number")),
            },
            "label" => match attribute.value.trim() {
                "" => return Err(attribute.error("the label is empty")),
                text => label = Some(text.to_owned()),
            },
            "masked" => masked = attribute.as_bool()?,
            "synchronized" => synchronized = attribute.as_bool()?,
            _ => return Err(attribute.unknown(element)),
        }
    }
    let Some(ordinal) = ordinal else {
        return Err(element.error("<field> has no attribute 'ordinal'"));
    };
    let Some(label) = label else {
        return Err(element.error("<field> has no attribute 'label'"));
    };
    Ok((ordinal, FieldDefinition { label, masked, synchronized }, element))
}

/// Sorts fields by ordinal and refuses gaps, repetitions and labels that stand twice.
fn arrange(
    application: &Element,
    mut fields: Vec<(u32, FieldDefinition, &Element)>,
) -> Result<Vec<FieldDefinition>, XmlError> {
    fields.sort_by_key(|(ordinal, _, _)| *ordinal);
    let mut labels = std::collections::HashSet::new();
    for (expected, (ordinal, field, element)) in (0_u32..).zip(&fields) {
        if *ordinal < expected {
            return Err(element.error(format!("ordinal {ordinal} stands twice")));
        }
        if *ordinal > expected {
            return Err(application.error(format!(
                "the ordinals of the fields must count from 0 without a gap; {expected} is missing"
            )));
        }
        if !labels.insert(field.label.to_lowercase()) {
            return Err(element.error(format!("label '{}' stands twice", field.label)));
        }
    }
    Ok(fields.into_iter().map(|(_, field, _)| field).collect())
}

/// Refuses flags that exclude each other whatever the server thinks of them.
fn require_compatible(
    element: &Element,
    application: &ApplicationDefinition,
) -> Result<(), XmlError> {
    let excluded = [
        (Flag::ConfigStoreApp, Flag::GroupApp),
        (Flag::ConfigStoreApp, Flag::HostInitiatedSso),
        (Flag::ConfigStoreApp, Flag::AllowTickets),
        (Flag::ConfigStoreApp, Flag::DirectPasswordSync),
        (Flag::GroupApp, Flag::WindowsCreds),
    ];
    for (one, other) in excluded {
        if application.flags.is_on(one) && application.flags.is_on(other) {
            return Err(element.error(format!(
                "flags '{}' and '{}' of application '{}' exclude each other",
                one.as_str(),
                other.as_str(),
                application.name
            )));
        }
    }
    if application.windows_account.is_some() && application.user_accounts.is_some() {
        let message = "<windowsAccount> and <appUserAccount> exclude each other";
        return Err(element.error(message));
    }
    if application.fields.iter().filter(|field| field.synchronized).count() > 1 {
        return Err(element.error("at most one field may be synchronized"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
