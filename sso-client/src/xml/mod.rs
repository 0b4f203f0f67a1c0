//! Strict readers and a writer for the XML files of administrators: applications, mappings,
//! global information, settings.
//!
//! No document type, no entity but the five predefined ones, no processing instruction, at most
//! 4 MiB (64 MiB for mappings) and 16 levels. UTF-8, or UTF-16 with a byte order mark. Element and attribute names are
//! taken regardless of case; an unknown one is an error, so that a misspelt flag is never lost
//! silently. Every error names line and column; none quotes a value.

mod applications;
mod flags;
mod global_info;
mod mappings;
mod reader;
mod settings;
mod writer;

pub use applications::{ApplicationDefinition, FieldDefinition, Kind, parse_applications};
pub use flags::{Flag, Flags};
pub use global_info::{GlobalInfoUpdate, parse_global_info};
pub use mappings::{MAX_MAPPINGS_BYTES, MappingDefinition, parse_mappings};
pub use reader::{Element, Position, XmlError, parse_document};
pub use settings::{Setting, parse_settings};
pub use writer::{WriteError, write_applications, write_global_info, write_mappings};
