//! Settings files: `<settings><property name="X">value</property></settings>`.

use std::collections::HashSet;

use sso_core::secret::SecretText;

use super::{
    applications::require_root,
    reader::{Position, XmlError, parse_document},
};

/// One property: the label of a field and its value.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Where it stands in its file.
    pub position: Position,
    /// Label of the field, as written.
    pub name: String,
    /// The text of the element exactly as written, white space included.
    pub value: SecretText,
}

/// Parses a settings file. Names are unique regardless of case.
///
/// # Errors
/// The first fault, with line and column; never with a value.
pub fn parse_settings(bytes: &[u8]) -> Result<Vec<Setting>, XmlError> {
    let root = parse_document(bytes)?;
    require_root(&root, "settings")?;
    let mut names = HashSet::new();
    let mut settings = Vec::with_capacity(root.children().len());
    for child in root.children() {
        if !child.is("property") {
            let message = format!("<{}> stands where only <property> may", child.name());
            return Err(child.error(message));
        }
        let mut name = None;
        for attribute in &child.attributes {
            match attribute.is("name") {
                true => name = Some(attribute.value.trim()),
                false => return Err(attribute.unknown(child)),
            }
        }
        let name = match name {
            None => return Err(child.error("<property> has no attribute 'name'")),
            Some("") => return Err(child.error("the name of the property is empty")),
            Some(name) => name.to_owned(),
        };
        if !names.insert(name.to_lowercase()) {
            return Err(child.error(format!("property '{name}' stands twice")));
        }
        let value = SecretText::new(child.exact_text()?.to_owned());
        settings.push(Setting { position: child.position, name, value });
    }
    match settings.is_empty() {
        true => Err(root.error("the file holds no <property>")),
        false => Ok(settings),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_file() {
        let bytes = include_bytes!("../../tests/data/extra/config-store-settings-import.xml");
        let settings = parse_settings(bytes).unwrap();
        let names: Vec<_> = settings.iter().map(|setting| setting.name.as_str()).collect();
        assert_eq!(
            names,
            ["RoutingServiceUrl", "RetryLimit", "PartnerApiKey", "ArchiveConnectionString"]
        );
        assert_eq!(settings[1].value.expose(), "5");
    }

    #[test]
    fn values_are_exact() {
        let file = "<Settings><Property NAME='a'>  x\r\n&lt;y&gt; </Property>\
                    <property name='b'/><property name='c'><![CDATA[<z>&]]></property></Settings>";
        let settings = parse_settings(file.as_bytes()).unwrap();
        assert_eq!(settings[0].value.expose(), "  x\n<y> ");
        assert_eq!(settings[1].value.expose(), "");
        assert_eq!(settings[2].value.expose(), "<z>&");
    }

    #[test]
    fn faults_have_a_position_and_no_value() {
        for (file, expected) in [
            ("<sso/>", "line 1, column 1: the top element is <sso>; it must be <settings>"),
            ("<settings></settings>", "line 1, column 1: the file holds no <property>"),
            ("<settings>\n<setting/></settings>", "line 2, column 1: <setting> stands where"),
            ("<settings><property/></settings>", "column 11: <property> has no attribute 'name'"),
            ("<settings><property name=' '/></settings>", "the name of the property is empty"),
            (
                "<settings><property name='A' value='canary'/></settings>",
                "line 1, column 30: unknown attribute 'value' in <property>",
            ),
            (
                "<settings><property name='A'>canary</property>\n <property name='a'/></settings>",
                "line 2, column 2: property 'a' stands twice",
            ),
            (
                "<settings><property name='A'><b>canary</b></property></settings>",
                "column 30: <property> must not contain elements",
            ),
            ("<settings>canary<property name='A'/></settings>", "must not contain text"),
        ] {
            let error = parse_settings(file.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{file}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
