//! What the tests of this module share.

use crate::{Configuration, SecretText};

pub(super) fn configuration(values: &[(&str, &str)]) -> Configuration {
    let secret = |text: &str| SecretText::new(text.to_owned());
    Configuration {
        application: "App".to_owned(),
        identifier: "Id".to_owned(),
        revision: 3,
        values: values.iter().map(|(key, text)| ((*key).to_owned(), secret(text))).collect(),
        masked: Vec::new(),
        updated_at: None,
        updated_by: String::new(),
    }
}
