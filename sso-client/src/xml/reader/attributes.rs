//! The attributes of a start tag.

use quick_xml::{
    XmlVersion,
    events::{BytesStart, attributes::AttrError},
};
use zeroize::Zeroizing;

use super::{Attribute, XmlError, encoding, position::Locator};

/// More than any element of the known files has.
pub(super) const MAX_ATTRIBUTES: usize = 64;

/// Reads the attributes of the tag that starts at `offset`: at most [`MAX_ATTRIBUTES`], whose names
/// differ in more than case.
pub(super) fn read(
    tag: &BytesStart<'_>,
    offset: usize,
    locator: &mut Locator<'_>,
) -> Result<Vec<Attribute>, XmlError> {
    let mut attributes: Vec<Attribute> = Vec::new();
    let base = tag.as_ptr() as usize;
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|error| {
            let (at, message) = describe(&error);
            XmlError::new(locator.position(offset + 1 + at), message)
        })?;
        let name = attribute.key.as_ref();
        // Both lie in the same tag, so this is how far behind its '<' and name the attribute is.
        let at = (name.as_ptr() as usize).saturating_sub(base).min(tag.len());
        let position = locator.position(offset + 1 + at);
        if attributes.len() == MAX_ATTRIBUTES {
            let message = format!("more than {MAX_ATTRIBUTES} attributes in one element");
            return Err(XmlError::new(position, message));
        }
        if attribute.value.contains('<') {
            let message = format!("'<' must be written as '&lt;' in attribute '{name}'");
            return Err(XmlError::new(position, message));
        }
        let value = match attribute.normalized_value(XmlVersion::Explicit1_0) {
            Ok(value) if value.chars().all(encoding::is_character) => value,
            Ok(_) | Err(_) => {
                let message = format!(
                    "attribute '{name}' has an unknown or broken '&…;' reference \
                     (write a plain ampersand as &amp;)"
                );
                return Err(XmlError::new(position, message));
            }
        };
        let value = Zeroizing::new(value.into_owned());
        let attribute = Attribute { name: name.to_owned(), value, position };
        if attributes.iter().any(|earlier| earlier.is(&attribute.name)) {
            return Err(attribute.error(format!("attribute '{}' stands twice", attribute.name)));
        }
        attributes.push(attribute);
    }
    Ok(attributes)
}

fn describe(error: &AttrError) -> (usize, &'static str) {
    match *error {
        AttrError::ExpectedEq(at) => (at, "an attribute without '='"),
        AttrError::ExpectedValue(at) => (at, "an attribute without a value"),
        AttrError::UnquotedValue(at) => (at, "an attribute value without quotes"),
        AttrError::ExpectedQuote(at, _) => (at, "an attribute value without its closing quote"),
        AttrError::Duplicated(at, _) => (at, "an attribute stands twice"),
    }
}
