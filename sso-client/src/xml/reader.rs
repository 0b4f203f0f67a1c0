//! Turns the bytes of a file into a small tree of elements, or into an error with its position.

mod attributes;
mod encoding;
mod position;

use quick_xml::{
    XmlVersion,
    errors::{IllFormedError, SyntaxError},
    events::{BytesDecl, BytesRef, BytesStart, Event},
};
use zeroize::Zeroizing;

use self::position::Locator;
pub use self::position::Position;

/// Bytes of the largest file that is kept as a tree.
const MAX_BYTES: usize = 4 * 1024 * 1024;
const MAX_DEPTH: usize = 16;
/// Elements that are in memory at the same time.
const MAX_ELEMENTS: usize = 50_000;

/// Takes the elements directly inside of the root, which comes first, as soon as each is closed.
pub(super) type Sink<'s> = dyn FnMut(&Element, Element) -> Result<(), XmlError> + 's;

/// Why a file was not accepted, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {message}")]
pub struct XmlError {
    /// Where in the file.
    pub position: Position,
    /// What is wrong and what to do; never a value from the file.
    pub message: String,
}

impl XmlError {
    pub(super) fn new(position: Position, message: impl Into<String>) -> Self {
        Self { position, message: message.into() }
    }
}

/// One attribute, its value with references resolved and white space normalised.
#[derive(Clone)]
pub(super) struct Attribute {
    pub(super) name: String,
    pub(super) value: Zeroizing<String>,
    pub(super) position: Position,
}

/// One element of a document. It has no `Debug`: texts may be secrets.
#[derive(Clone)]
pub struct Element {
    pub(super) name: String,
    pub(super) position: Position,
    pub(super) attributes: Vec<Attribute>,
    pub(super) children: Vec<Element>,
    pub(super) text: Zeroizing<String>,
    /// First character of the text that is not white space.
    text_position: Option<Position>,
}

impl Element {
    /// The name as written.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The elements directly inside.
    #[must_use]
    pub fn children(&self) -> &[Element] {
        &self.children
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Two samples of the reference product's manual open `<globalnfo>` and close `</globalInfo>`
    /// (ESSO.md 7.1); documents made from them have nothing else wrong.
    fn is_closed_by(&self, end: &str) -> bool {
        self.name == end || (self.name == "globalnfo" && end == "globalInfo")
    }

    pub(super) fn error(&self, message: impl Into<String>) -> XmlError {
        XmlError::new(self.position, message)
    }

    /// Refuses text between the child elements.
    pub(super) fn require_no_text(&self) -> Result<(), XmlError> {
        match self.text_position {
            None => Ok(()),
            Some(position) => {
                Err(XmlError::new(position, format!("<{}> must not contain text", self.name)))
            }
        }
    }

    /// Refuses every attribute.
    pub(super) fn require_no_attributes(&self) -> Result<(), XmlError> {
        match self.attributes.first() {
            None => Ok(()),
            Some(attribute) => Err(attribute.unknown(self)),
        }
    }

    /// The text of an element that holds nothing else, exactly as written.
    pub(super) fn exact_text(&self) -> Result<&str, XmlError> {
        match self.children.first() {
            None => Ok(&self.text),
            Some(child) => Err(child.error(format!("<{}> must not contain elements", self.name))),
        }
    }

    /// Like [`Self::exact_text`], without attributes and without white space around it.
    pub(super) fn plain_text(&self) -> Result<&str, XmlError> {
        self.require_no_attributes()?;
        self.exact_text().map(str::trim)
    }
}

impl Attribute {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    pub(super) fn error(&self, message: impl Into<String>) -> XmlError {
        XmlError::new(self.position, message)
    }

    pub(super) fn unknown(&self, element: &Element) -> XmlError {
        self.error(format!("unknown attribute '{}' in <{}>", self.name, element.name))
    }

    /// `yes`, `no`, `on` or `off` in any case.
    pub(super) fn as_bool(&self) -> Result<bool, XmlError> {
        match self.value.trim() {
            text if text.eq_ignore_ascii_case("yes") || text.eq_ignore_ascii_case("on") => Ok(true),
            text if text.eq_ignore_ascii_case("no") || text.eq_ignore_ascii_case("off") => {
                Ok(false)
            }
            _ => Err(self.error(format!("attribute '{}' must be yes, no, on or off", self.name))),
        }
    }
}

/// Parses a document and returns its root element.
///
/// # Errors
/// The first fault of the file, with line and column.
pub fn parse_document(bytes: &[u8]) -> Result<Element, XmlError> {
    read(bytes, MAX_BYTES, None)
}

/// Parses a long list: every element directly inside of the root goes to `sink` instead of into the
/// tree. Returns the root without them.
pub(super) fn parse_list(
    bytes: &[u8],
    most: usize,
    sink: &mut Sink<'_>,
) -> Result<Element, XmlError> {
    read(bytes, most, Some(sink))
}

fn read(bytes: &[u8], most: usize, sink: Option<&mut Sink<'_>>) -> Result<Element, XmlError> {
    if bytes.len() > most {
        let message = format!("the file has {} bytes; at most {most} are read", bytes.len());
        return Err(XmlError::new(Position::START, message));
    }
    let (text, encoding) = encoding::decode(bytes)?;
    encoding::require_characters(&text)?;
    Parser::new(&text, encoding, sink).run()
}

struct Parser<'t, 's, 'c> {
    source: &'t str,
    encoding: encoding::Encoding,
    locator: Locator<'t>,
    open: Vec<Element>,
    root: Option<Element>,
    elements: usize,
    sink: Option<&'s mut Sink<'c>>,
}

impl<'t, 's, 'c> Parser<'t, 's, 'c> {
    fn new(source: &'t str, encoding: encoding::Encoding, sink: Option<&'s mut Sink<'c>>) -> Self {
        let locator = Locator::new(source);
        Self { source, encoding, locator, open: Vec::new(), root: None, elements: 0, sink }
    }

    fn run(mut self) -> Result<Element, XmlError> {
        let mut reader = quick_xml::Reader::from_str(self.source);
        let config = reader.config_mut();
        config.check_comments = true;
        // Checked here, for the sake of one misspelling: see `is_closed_by`.
        config.check_end_names = false;
        config.allow_unmatched_ends = false;
        config.allow_dangling_amp = false;
        loop {
            let offset = to_offset(reader.buffer_position());
            let event = match reader.read_event() {
                Ok(event) => event,
                Err(error) => {
                    let position = self.locator.position(to_offset(reader.error_position()));
                    return Err(XmlError::new(position, describe(&error)));
                }
            };
            if matches!(event, Event::Eof) {
                return self.finish();
            }
            self.take(event, offset)?;
        }
    }

    fn take(&mut self, event: Event<'_>, offset: usize) -> Result<(), XmlError> {
        match event {
            Event::Start(start) => {
                let element = self.element(&start, offset)?;
                if self.open.len() >= MAX_DEPTH {
                    return Err(element.error(format!("more than {MAX_DEPTH} levels of elements")));
                }
                self.open.push(element);
                Ok(())
            }
            Event::Empty(start) => {
                let element = self.element(&start, offset)?;
                self.close(element)
            }
            Event::End(end) => match self.open.pop() {
                Some(element) if element.is_closed_by(end.name().as_ref()) => self.close(element),
                Some(element) => {
                    let found = end.name();
                    let message =
                        format!("</{}> stands where </{}> must", found.as_ref(), element.name);
                    Err(self.fault(offset, &message))
                }
                None => Ok(()),
            },
            Event::Text(text) => {
                if text.contains("]]>") {
                    return Err(self.fault(offset, "']]>' must be written as ']]&gt;' in text"));
                }
                self.text(&text.xml10_content(), offset)
            }
            Event::CData(text) => self.text(&text.xml10_content(), offset),
            Event::GeneralRef(reference) => self.reference(&reference, offset),
            Event::Comment(_) => Ok(()),
            Event::Decl(declaration) => self.declaration(&declaration, offset),
            Event::PI(_) => Err(self.fault(offset, "processing instructions are not accepted")),
            Event::DocType(_) => Err(self.fault(
                offset,
                "document types and entity declarations are not accepted; remove <!DOCTYPE …>",
            )),
            Event::Eof => Ok(()),
        }
    }

    fn fault(&mut self, offset: usize, message: &str) -> XmlError {
        XmlError::new(self.locator.position(offset), message)
    }

    fn element(&mut self, start: &BytesStart<'_>, offset: usize) -> Result<Element, XmlError> {
        let position = self.locator.position(offset);
        self.elements += 1;
        if self.elements > MAX_ELEMENTS {
            let message = format!("more than {MAX_ELEMENTS} elements");
            return Err(XmlError::new(position, message));
        }
        if self.open.is_empty() && self.root.is_some() {
            let message = "only one element may stand at the top of the file";
            return Err(XmlError::new(position, message));
        }
        let name = start.name().as_ref().to_owned();
        let attributes = attributes::read(start, offset, &mut self.locator)?;
        Ok(Element {
            name,
            position,
            attributes,
            children: Vec::new(),
            text: Zeroizing::new(String::new()),
            text_position: None,
        })
    }

    fn close(&mut self, element: Element) -> Result<(), XmlError> {
        match (self.open.as_mut_slice(), &mut self.sink) {
            ([root], Some(sink)) => {
                sink(root, element)?;
                self.elements = 1;
            }
            ([.., parent], _) => parent.children.push(element),
            ([], _) => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: &str, offset: usize) -> Result<(), XmlError> {
        let blank = text.trim_matches([' ', '\t', '\n', '\r']).is_empty();
        let start = text.len() - text.trim_start().len();
        let Some(element) = self.open.last_mut() else {
            return match blank {
                true => Ok(()),
                false => Err(self.fault(offset + start, "text outside of the top element")),
            };
        };
        if !blank && element.text_position.is_none() {
            element.text_position = Some(self.locator.position(offset + start));
        }
        push_wiped(&mut element.text, text);
        Ok(())
    }

    fn reference(&mut self, reference: &BytesRef<'_>, offset: usize) -> Result<(), XmlError> {
        let resolved = match reference.resolve_char_ref() {
            Ok(Some(character)) if encoding::is_character(character) => character,
            Ok(None) => match reference.xml10_content().as_ref() {
                "lt" => '<',
                "gt" => '>',
                "amp" => '&',
                "apos" => '\'',
                "quot" => '"',
                name => {
                    let message = format!(
                        "unknown entity '&{name};'; only lt, gt, amp, apos and quot are accepted"
                    );
                    return Err(self.fault(offset, &message));
                }
            },
            Ok(Some(_)) | Err(_) => {
                return Err(self.fault(offset, "the reference names no character XML allows"));
            }
        };
        let mut buffer = [0; 4];
        let text: &str = resolved.encode_utf8(&mut buffer);
        match self.open.last_mut() {
            None => Err(self.fault(offset, "text outside of the top element")),
            Some(element) => {
                element.text_position.get_or_insert_with(|| self.locator.position(offset));
                push_wiped(&mut element.text, text);
                Ok(())
            }
        }
    }

    fn declaration(&mut self, decl: &BytesDecl<'_>, offset: usize) -> Result<(), XmlError> {
        if offset != 0 {
            return Err(self.fault(offset, "<?xml …?> may stand only at the start of the file"));
        }
        match decl.xml_version() {
            Ok(XmlVersion::Implicit1_0 | XmlVersion::Explicit1_0) => {}
            Ok(_) | Err(_) => return Err(self.fault(offset, "only XML version 1.0 is accepted")),
        }
        match decl.encoding() {
            None => Ok(()),
            Some(Ok(name)) if self.encoding.is_named(&name) => Ok(()),
            Some(_) => Err(self.fault(
                offset,
                "the encoding must be UTF-8, or UTF-16 with a byte order mark; save the file so",
            )),
        }
    }

    fn finish(mut self) -> Result<Element, XmlError> {
        if let Some(element) = self.open.last() {
            return Err(element.error(format!("<{}> is never closed", element.name)));
        }
        match self.root.take() {
            Some(root) => Ok(root),
            None => Err(self.fault(self.source.len(), "the file holds no element")),
        }
    }
}

/// Appends without leaving an unwiped copy behind when the buffer has to grow.
fn push_wiped(text: &mut Zeroizing<String>, more: &str) {
    if text.capacity() - text.len() < more.len() {
        let mut grown = Zeroizing::new(String::with_capacity((text.len() + more.len()) * 2));
        grown.push_str(text);
        *text = grown;
    }
    text.push_str(more);
}

fn to_offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// In our words; the library's own would quote what stands in the file.
fn describe(error: &quick_xml::Error) -> String {
    use quick_xml::Error;
    match error {
        Error::Syntax(error) => match error {
            SyntaxError::InvalidBangMarkup => "'<!' starts neither a comment nor CDATA".to_owned(),
            SyntaxError::UnclosedPI | SyntaxError::UnclosedXmlDecl => {
                "'<?' without '?>'".to_owned()
            }
            SyntaxError::UnclosedComment => "'<!--' without '-->'".to_owned(),
            SyntaxError::UnclosedDoctype => {
                "document types and entity declarations are not accepted".to_owned()
            }
            SyntaxError::UnclosedCData => "'<![CDATA[' without ']]>'".to_owned(),
            SyntaxError::UnclosedTag => "'<' without '>'".to_owned(),
            SyntaxError::UnclosedSingleQuotedAttributeValue
            | SyntaxError::UnclosedDoubleQuotedAttributeValue => {
                "an attribute value without its closing quote".to_owned()
            }
        },
        Error::IllFormed(error) => match error {
            IllFormedError::MissingDeclVersion(_) | IllFormedError::UnknownVersion => {
                "only XML version 1.0 is accepted".to_owned()
            }
            IllFormedError::MissingDoctypeName => {
                "document types and entity declarations are not accepted".to_owned()
            }
            IllFormedError::MissingEndTag(name) => format!("<{name}> is never closed"),
            IllFormedError::UnmatchedEndTag(name) => format!("</{name}> closes nothing"),
            IllFormedError::MismatchedEndTag { expected, found } => {
                format!("</{found}> stands where </{expected}> must")
            }
            IllFormedError::DoubleHyphenInComment => "'--' inside of a comment".to_owned(),
            IllFormedError::UnclosedReference => {
                "'&' without ';' (write a plain ampersand as &amp;)".to_owned()
            }
        },
        Error::Io(_)
        | Error::InvalidAttr(_)
        | Error::Encoding(_)
        | Error::Escape(_)
        | Error::Namespace(_) => "not well-formed XML".to_owned(),
    }
}

#[cfg(test)]
mod tests;
