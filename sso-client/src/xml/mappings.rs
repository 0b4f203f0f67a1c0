//! Files of mappings, for creating and for deleting: `<sso><mapping>…`.

use super::{
    applications::{once, require_root, text},
    reader::{Element, Position, XmlError, parse_list},
};

/// Bytes of the largest file of mappings: room for more than 300 000 of them.
pub const MAX_MAPPINGS_BYTES: usize = 64 * 1024 * 1024;

/// One `<mapping>` element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingDefinition {
    /// Where it starts in its file.
    pub position: Position,
    /// `DOMAIN\user`, or `user` where the file gives no domain; in a group application the group.
    /// Empty where the file gives neither, as it may for a host group application.
    pub account: String,
    /// Name of the application.
    pub application: String,
    /// The user of the external system.
    pub external_user: String,
}

/// Parses a file of mappings of at most [`MAX_MAPPINGS_BYTES`], one element after the other: the memory
/// it takes is that of the decoded text and of the mappings themselves.
///
/// # Errors
/// The first fault, with line and column: malformed XML, an unknown element or attribute, a part that
/// is missing or stands twice. `<sso>` without mappings is a file of none: an export may be. Whether two mappings can stand side by side is the server's to say.
pub fn parse_mappings(bytes: &[u8]) -> Result<Vec<MappingDefinition>, XmlError> {
    let mut mappings = Vec::new();
    let root = parse_list(bytes, MAX_MAPPINGS_BYTES, &mut |root, child| {
        require_root(root, "sso")?;
        mappings.push(parse_mapping(&child)?);
        Ok(())
    })?;
    require_root(&root, "sso")?;
    Ok(mappings)
}

fn parse_mapping(element: &Element) -> Result<MappingDefinition, XmlError> {
    if !element.is("mapping") {
        return Err(element.error(foreign(element)));
    }
    element.require_no_attributes()?;
    element.require_no_text()?;
    let (mut domain, mut user) = (None, None);
    let (mut application, mut external_user) = (None, None);
    for child in element.children() {
        match child.name().to_ascii_lowercase().as_str() {
            "windowsdomain" => once(child, &mut domain, account_part)?,
            "windowsuserid" => once(child, &mut user, account_part)?,
            "externalapplication" => once(child, &mut application, filled)?,
            "externaluserid" => once(child, &mut external_user, filled)?,
            _ => {
                let message = format!("unknown element <{}> in <mapping>", child.name());
                return Err(child.error(message));
            }
        }
    }
    Ok(MappingDefinition {
        position: element.position,
        account: account(element, &domain.unwrap_or_default(), &user.unwrap_or_default())?,
        application: required(element, application, "externalApplication")?,
        external_user: required(element, external_user, "externalUserId")?,
    })
}

fn foreign(element: &Element) -> String {
    let hint = if element.is("application") {
        " (this is a file of applications: sso app create --file)"
    } else if element.is("globalInfo") {
        " (this is a file of global information: sso system update --file)"
    } else {
        ""
    };
    format!("<{}> stands where only <mapping> may{hint}", element.name())
}

/// A domain or a user, either of which may be empty.
fn account_part(element: &Element) -> Result<String, XmlError> {
    let part = text(element)?;
    match part.contains('\\') {
        false => Ok(part),
        true => Err(element.error(format!(
            "<{}> must not hold a backslash; the domain stands in <windowsDomain> alone",
            element.name()
        ))),
    }
}

fn account(element: &Element, domain: &str, user: &str) -> Result<String, XmlError> {
    match (domain, user) {
        ("", user) => Ok(user.to_owned()),
        (_, "") => Err(element.error("<mapping> has a <windowsDomain> but no <windowsUserId>")),
        (domain, user) => Ok(format!("{domain}\\{user}")),
    }
}

fn filled(element: &Element) -> Result<String, XmlError> {
    match text(element)? {
        empty if empty.is_empty() => Err(element.error(format!("<{}> is empty", element.name()))),
        text => Ok(text),
    }
}

fn required(element: &Element, part: Option<String>, name: &str) -> Result<String, XmlError> {
    part.ok_or_else(|| element.error(format!("<mapping> has no <{name}>")))
}

#[cfg(test)]
mod tests;
