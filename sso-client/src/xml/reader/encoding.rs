//! Bytes to text, and the characters XML 1.0 allows.

use zeroize::Zeroizing;

use super::{Position, XmlError, position::Locator};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    Utf16,
}

impl Encoding {
    /// Whether the name in the XML declaration means this encoding.
    pub(super) fn is_named(self, name: &str) -> bool {
        let names: &[&str] = match self {
            Self::Utf8 => &["utf-8", "utf8"],
            Self::Utf16 => &["utf-16", "utf16", "unicode", "utf-16le", "utf-16be"],
        };
        names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// Decodes by byte order mark, without one as UTF-8. The mark is not part of the text.
pub(super) fn decode(bytes: &[u8]) -> Result<(Zeroizing<String>, Encoding), XmlError> {
    if let Some(rest) = bytes.strip_prefix(&[0xFF, 0xFE]) {
        return decode_utf16(rest, u16::from_le_bytes);
    }
    if let Some(rest) = bytes.strip_prefix(&[0xFE, 0xFF]) {
        return decode_utf16(rest, u16::from_be_bytes);
    }
    let bytes = bytes.strip_prefix(&[0xEF, 0xBB, 0xBF]).unwrap_or(bytes);
    match str::from_utf8(bytes) {
        Ok(text) => Ok((Zeroizing::new(text.to_owned()), Encoding::Utf8)),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let good = str::from_utf8(good).unwrap_or_default();
            let position = Locator::new(good).position(good.len());
            Err(XmlError::new(position, "a byte that is not UTF-8; save the file as UTF-8"))
        }
    }
}

fn decode_utf16(
    bytes: &[u8],
    unit: fn([u8; 2]) -> u16,
) -> Result<(Zeroizing<String>, Encoding), XmlError> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 2));
    for character in char::decode_utf16(pairs.iter().map(|&pair| unit(pair))) {
        match character {
            Ok(character) => text.push(character),
            Err(_) => {
                let position = Locator::new(&text).position(text.len());
                return Err(XmlError::new(position, "half of a UTF-16 surrogate pair"));
            }
        }
    }
    if !rest.is_empty() {
        let position = Locator::new(&text).position(text.len());
        return Err(XmlError::new(position, "the file ends in the middle of a character"));
    }
    Ok((text, Encoding::Utf16))
}

/// Refuses what XML 1.0 does not allow even as a reference.
pub(super) fn require_characters(text: &str) -> Result<(), XmlError> {
    match text.char_indices().find(|&(_, character)| !is_character(character)) {
        None => Ok(()),
        Some((offset, character)) => {
            let position: Position = Locator::new(text).position(offset);
            let message = format!("character U+{:04X} is not allowed in XML", u32::from(character));
            Err(XmlError::new(position, message))
        }
    }
}

pub(super) fn is_character(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}
