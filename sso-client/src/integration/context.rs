//! The context that travels with a message: above all for whom it travels.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use sso_core::secret::SecretText;
use zeroize::{Zeroize as _, Zeroizing};

use crate::IssuedTicket;

/// The property that the ticket stands in when a context is written down.
pub const TICKET_PROPERTY: &str = "SSOTicket";
/// The property that the originator stands in.
pub const ORIGINATOR_PROPERTY: &str = "OriginatorSID";

/// The version of the written form.
const VERSION: u32 = 1;
/// Bytes of the longest ticket, account, and name or value of a property; of properties so many.
const TICKET_MAX: usize = 4096;
const ACCOUNT_MAX: usize = 1024;
const PROPERTY_MAX: usize = 64 * 1024;
const PROPERTIES_MAX: usize = 256;

/// What is known of a message beside its body: the sign-on of the user it travels for, and promoted
/// properties.
///
/// In BizTalk the receive adapter writes the ticket into the context property `SSOTicket`, the message
/// box stamps `OriginatorSID`, and whoever makes a new message of an old one has to copy **both**. Here
/// they are one thing, [`SignOn`]: set together, copied together ([`MessageContext::copy_sign_on_to`]),
/// read together, and a written context with one of them alone is refused.
///
/// `Debug` hides the ticket, dropping wipes it. Written down ([`MessageContext::to_text`], or `serde`)
/// it stands there in full, for an outbox that survives restarts: keep that where nobody else reads it.
/// A ticket is no password, but until it ends it is worth one to those who may redeem it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct MessageContext {
    sign_on: Option<SignOn>,
    properties: BTreeMap<String, String>,
}

/// For whom a message travels: a ticket, and the account that it was issued to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignOn {
    ticket: SecretText,
    originator: String,
}

/// A context that makes no sense. No text repeats a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// Only one of ticket and originator is there.
    #[error(
        "the message context has one of SSOTicket and OriginatorSID without the other: whoever makes \
         a message of another one copies both"
    )]
    Half,
    /// The ticket is empty, too long, or has characters that no ticket has.
    #[error(
        "the ticket in the message context is none: it has 1 to 4096 letters, digits and . - _"
    )]
    Ticket,
    /// The originator is empty, too long or has control characters.
    #[error("the originator in the message context is no account: DOMAIN\\name is expected")]
    Originator,
    /// The name belongs to the sign-on.
    #[error("SSOTicket and OriginatorSID are set together, as the sign-on of the message")]
    Reserved,
    /// A property has no name, is too long, or there are too many.
    #[error(
        "a property of the message context has no name or is longer than 65536 bytes, or there are \
         more than 256"
    )]
    Property,
    /// The text is no written context.
    #[error("the text is no message context of version 1 (line {line}, column {column})")]
    Text {
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
    },
}

impl SignOn {
    /// A ticket with the account it was issued to, `DOMAIN\name`.
    ///
    /// # Errors
    /// [`ContextError::Ticket`] and [`ContextError::Originator`].
    pub fn new(ticket: SecretText, originator: impl Into<String>) -> Result<Self, ContextError> {
        let originator = originator.into();
        // Expose: looked at, not kept.
        let text = ticket.expose().as_bytes();
        let of_a_ticket = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_".contains(byte);
        if text.is_empty() || text.len() > TICKET_MAX || !text.iter().all(of_a_ticket) {
            return Err(ContextError::Ticket);
        }
        let plain = !originator.chars().any(char::is_control);
        if originator.trim().is_empty() || originator.len() > ACCOUNT_MAX || !plain {
            return Err(ContextError::Originator);
        }
        Ok(Self { ticket, originator })
    }

    /// The ticket: for redeeming, and for nothing else.
    #[must_use]
    pub fn ticket(&self) -> &SecretText {
        &self.ticket
    }

    /// Whom the message is from, `DOMAIN\name`.
    #[must_use]
    pub fn originator(&self) -> &str {
        &self.originator
    }
}

impl MessageContext {
    /// A context without a sign-on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The context of a message from the user whom the ticket was issued to.
    ///
    /// # Errors
    /// [`ContextError::Ticket`] and [`ContextError::Originator`], of an answer that makes no sense.
    pub fn of(issued: IssuedTicket) -> Result<Self, ContextError> {
        let sign_on = SignOn::new(issued.ticket, issued.account)?;
        Ok(Self { sign_on: Some(sign_on), properties: BTreeMap::new() })
    }

    /// For whom the message travels; `None`: for nobody.
    #[must_use]
    pub fn sign_on(&self) -> Option<&SignOn> {
        self.sign_on.as_ref()
    }

    /// The message travels for this user from now on, or for nobody.
    pub fn set_sign_on(&mut self, sign_on: Option<SignOn>) {
        self.sign_on = sign_on;
    }

    /// The message of `other` travels for the same user as this one: for nobody where this one does,
    /// so that no sign-on of somebody else stays behind.
    pub fn copy_sign_on_to(&self, other: &mut Self) {
        other.sign_on.clone_from(&self.sign_on);
    }

    /// Sets a promoted property: what others may read without the body. No secrets.
    ///
    /// # Errors
    /// [`ContextError::Reserved`] and [`ContextError::Property`].
    pub fn promote(
        &mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<(), ContextError> {
        let (name, value) = (name.into(), value.into());
        check_property(&name, &value)?;
        if self.properties.len() >= PROPERTIES_MAX && !self.properties.contains_key(&name) {
            return Err(ContextError::Property);
        }
        self.properties.insert(name, value);
        Ok(())
    }

    /// A promoted property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// All promoted properties by name.
    #[must_use]
    pub fn properties(&self) -> &BTreeMap<String, String> {
        &self.properties
    }

    /// The written form, with the ticket in it: JSON of one line that later versions read as well.
    #[must_use]
    pub fn to_text(&self) -> SecretText {
        let written = Written::from(self.clone());
        // Room for everything at once: a buffer that grows leaves copies behind. Escaping makes six
        // bytes of one at most.
        let sizes = self.properties.iter().map(|(name, value)| name.len() + value.len() + 8);
        let room = 6 * (TICKET_MAX + ACCOUNT_MAX + sizes.sum::<usize>()) + 256;
        let mut text = Zeroizing::new(Vec::with_capacity(room));
        // Writing strings into memory does not fail.
        let _ = serde_json::to_writer(&mut *text, &written);
        SecretText::new(String::from_utf8(std::mem::take(&mut *text)).unwrap_or_default())
    }

    /// Reads what [`MessageContext::to_text`] wrote.
    ///
    /// # Errors
    /// See [`ContextError`].
    pub fn from_text(text: &str) -> Result<Self, ContextError> {
        // The library's own words may quote what stands there.
        let unreadable = |error: serde_json::Error| ContextError::Text {
            line: error.line(),
            column: error.column(),
        };
        serde_json::from_str::<Written>(text).map_err(unreadable)?.try_into()
    }
}

fn check_property(name: &str, value: &str) -> Result<(), ContextError> {
    let is = |reserved: &str| name.eq_ignore_ascii_case(reserved);
    if is(TICKET_PROPERTY) || is(ORIGINATOR_PROPERTY) {
        return Err(ContextError::Reserved);
    }
    if name.trim().is_empty() || name.len() > PROPERTY_MAX || value.len() > PROPERTY_MAX {
        return Err(ContextError::Property);
    }
    Ok(())
}

/// The written form. Names and meaning of its parts never change; new parts need a new version.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    #[serde(rename = "SSOTicket", default, skip_serializing_if = "Option::is_none")]
    ticket: Option<Plain>,
    #[serde(rename = "OriginatorSID", default, skip_serializing_if = "Option::is_none")]
    originator: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    properties: BTreeMap<String, String>,
}

/// A ticket on its way into or out of the written form.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Plain(String);

impl Drop for Plain {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plain(redacted)")
    }
}

impl From<MessageContext> for Written {
    fn from(context: MessageContext) -> Self {
        let (ticket, originator) = match context.sign_on {
            // Expose: into the written form, which is what the caller asked for.
            Some(sign_on) => {
                (Some(Plain(sign_on.ticket.expose().to_owned())), Some(sign_on.originator))
            }
            None => (None, None),
        };
        Self { version: VERSION, ticket, originator, properties: context.properties }
    }
}

impl TryFrom<Written> for MessageContext {
    type Error = ContextError;

    fn try_from(mut written: Written) -> Result<Self, ContextError> {
        if written.version != VERSION {
            return Err(ContextError::Text { line: 1, column: 1 });
        }
        let ticket =
            written.ticket.as_mut().map(|plain| SecretText::new(std::mem::take(&mut plain.0)));
        let sign_on = match (ticket, written.originator) {
            (Some(ticket), Some(originator)) => Some(SignOn::new(ticket, originator)?),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(ContextError::Half),
        };
        if written.properties.len() > PROPERTIES_MAX {
            return Err(ContextError::Property);
        }
        for (name, value) in &written.properties {
            check_property(name, value)?;
        }
        Ok(Self { sign_on, properties: written.properties })
    }
}

#[cfg(test)]
mod tests;
