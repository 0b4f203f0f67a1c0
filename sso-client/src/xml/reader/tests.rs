use proptest::prelude::*;

use super::*;

fn fault(file: &[u8]) -> String {
    match parse_document(file) {
        Ok(_) => panic!("accepted: {}", String::from_utf8_lossy(file)),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_sample_file_is_a_document() {
    for (file, root, children) in [
        (&include_bytes!("../../../tests/data/1-individual-app.xml")[..], "sso", 1),
        (include_bytes!("../../../tests/data/2-group-app.xml"), "sso", 1),
        (include_bytes!("../../../tests/data/3-host-initiated-apps.xml"), "sso", 2),
        (include_bytes!("../../../tests/data/4-config-store-app.xml"), "sso", 1),
        (include_bytes!("../../../tests/data/5-mappings.xml"), "sso", 6),
        (include_bytes!("../../../tests/data/6-global-info.xml"), "sso", 1),
        (include_bytes!("../../../tests/data/extra/update-app.xml"), "sso", 1),
        (include_bytes!("../../../tests/data/extra/password-sync-adapter.xml"), "sso", 1),
        (
            include_bytes!("../../../tests/data/extra/config-store-settings-import.xml"),
            "settings",
            4,
        ),
        (include_bytes!("../../../tests/data/manual/older-spellings.xml"), "SSO", 1),
        (include_bytes!("../../../tests/data/manual/global-info-misspelt.xml"), "sso", 1),
    ] {
        let document = parse_document(file).unwrap();
        assert_eq!((document.name(), document.children().len()), (root, children));
    }
}

#[test]
fn references_text_and_cdata() {
    let root = parse_document(
        b"<a x='&lt;&#x41;&#66;&amp;\n'>1&lt;&#x263A;<![CDATA[<&]]><!-- no -->2\r\n3</a>",
    )
    .unwrap();
    assert_eq!(root.attributes[0].value.as_str(), "<AB& ");
    assert_eq!(root.text.as_str(), "1<\u{263a}<&2\n3");
}

/// Each fault by name, with what the message must say.
#[test]
fn faults_of_the_document() {
    for (name, file, expected) in [
        ("empty", &b""[..], "line 1, column 1: the file holds no element"),
        ("only a comment", b"<!-- x -->\n", "line 2, column 1: the file holds no element"),
        ("text before", b"x<a/>", "line 1, column 1: text outside of the top element"),
        ("text behind", b"<a/>\n  x", "line 2, column 3: text outside of the top element"),
        ("reference behind", b"<a/>&lt;", "line 1, column 5: text outside"),
        ("two roots", b"<a/>\n<b/>", "line 2, column 1: only one element"),
        ("never closed", b"<a>\n <b>", "line 2, column 2: <b> is never closed"),
        ("wrong end", b"<a>\n</b>", "line 2, column 1: </b> stands where </a> must"),
        ("end without start", b"</a>", "line 1, column 1: </a> closes nothing"),
        ("cut tag", b"<a", "line 1, column 1: '<' without '>'"),
        ("cut comment", b"<a><!-- x</a>", "line 1, column 4: '<!--' without '-->'"),
        ("cut CDATA", b"<a><![CDATA[x</a>", "'<![CDATA[' without ']]>'"),
        ("comment with --", b"<a><!-- x -- y --></a>", "'--' inside of a comment"),
        ("doctype", b"<!DOCTYPE a><a/>", "line 1, column 1: document types"),
        (
            "entity declarations",
            b"<?xml version='1.0'?>\n<!DOCTYPE a [<!ENTITY x 'y'>]>\n<a>&x;</a>",
            "line 2, column 1: document types and entity declarations are not accepted",
        ),
        (
            "external entity",
            b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",
            "document types",
        ),
        ("doctype inside", b"<a><!DOCTYPE a></a>", "line 1, column 4: document types"),
        ("unknown entity", b"<a>\n &nbsp;</a>", "line 2, column 2: unknown entity '&nbsp;'"),
        ("unknown entity in attribute", b"<a b='&x;'/>", "line 1, column 4: attribute 'b' has"),
        ("bare ampersand", b"<a>fish & chips</a>", "(write a plain ampersand as &amp;)"),
        ("bare ampersand in attribute", b"<a b='x & y'/>", "attribute 'b' has"),
        ("null reference", b"<a>&#0;</a>", "line 1, column 4: the reference names no character"),
        ("control reference", b"<a>&#x1;</a>", "the reference names no character"),
        ("control reference in attribute", b"<a b='&#x1;'/>", "attribute 'b' has"),
        ("huge reference", b"<a>&#x110000;</a>", "the reference names no character"),
        ("control character", b"<a>\x01</a>", "line 1, column 4: character U+0001"),
        ("processing instruction", b"<a><?php x?></a>", "column 4: processing instructions"),
        ("stylesheet", b"<?xml-stylesheet href='x'?><a/>", "column 1: processing instructions"),
        ("late declaration", b"\n<?xml version='1.0'?><a/>", "line 2, column 1: <?xml"),
        ("version 1.1", b"<?xml version='1.1'?><a/>", "only XML version 1.0"),
        ("encoding", b"<?xml version='1.0' encoding='windows-1252'?><a/>", "must be UTF-8"),
        ("encoding lies", b"<?xml version='1.0' encoding='utf-16'?><a/>", "must be UTF-8"),
        ("not UTF-8", b"<a>\n\xE4</a>", "line 2, column 1: a byte that is not UTF-8"),
        ("half UTF-16", b"\xFF\xFE<\0a\0/\0>", "the file ends in the middle of a character"),
        ("lone surrogate", b"\xFE\xFF\0<\xD8\0\0a", "line 1, column 2: half of a UTF-16"),
        ("attribute twice", b"<a b='1'\n b='2'/>", "line 2, column 2: an attribute stands twice"),
        ("attribute twice by case", b"<a b='1' B='2'/>", "column 10: attribute 'B' stands twice"),
        ("attribute without value", b"<a b/>", "an attribute without '='"),
        ("attribute without quotes", b"<a b=1/>", "an attribute value without quotes"),
        ("attribute with <", b"<a b='<'/>", "'<' must be written as '&lt;'"),
        ("]]> in text", b"<a>]]></a>", "must be written as ']]&gt;'"),
    ] {
        let error = fault(file);
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn sizes_are_capped() {
    let large = vec![b' '; MAX_BYTES + 1];
    assert!(fault(&large).contains("at most 4194304 are read"));
    let deep = "<a>".repeat(MAX_DEPTH + 1);
    assert!(fault(deep.as_bytes()).contains("more than 16 levels"));
    let many = format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS));
    assert!(fault(many.as_bytes()).contains("more than 50000 elements"));
    let with = |count: usize| {
        let attributes: String = (0..count).map(|number| format!("\n a{number}=''")).collect();
        format!("<a{attributes}/>")
    };
    assert!(parse_document(with(attributes::MAX_ATTRIBUTES).as_bytes()).is_ok());
    let error = fault(with(attributes::MAX_ATTRIBUTES + 1).as_bytes());
    assert_eq!(error, "line 66, column 2: more than 64 attributes in one element");
}

#[test]
fn utf16_and_byte_order_marks() {
    let text = "<?xml version='1.0' encoding='UTF-16'?>\n<a>\u{e4}\u{1F600}</a>";
    let little: Vec<u8> =
        [0xFF, 0xFE].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let big: Vec<u8> =
        [0xFE, 0xFF].into_iter().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect();
    for bytes in [little, big] {
        assert_eq!(parse_document(&bytes).unwrap().text.as_str(), "\u{e4}\u{1F600}");
    }
    let marked = b"\xEF\xBB\xBF<?xml version='1.0' encoding='utf-8'?><a/>";
    assert_eq!(parse_document(marked).unwrap().name(), "a");
}

#[test]
fn columns_count_characters() {
    assert!(fault("<ä>öü<!DOCTYPE x></ä>".as_bytes()).starts_with("line 1, column 6:"));
}

proptest! {
    #[test]
    fn any_bytes_give_a_document_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse_document(&bytes);
    }

    #[test]
    fn anything_like_xml_gives_a_document_or_an_error(
        text in r#"(<\??!?/?[a-c]?(xml|DOCTYPE|\[CDATA\[|--)?|[a-c ]{0,3}='[&;<#x0-9]{0,4}'|/?>|&#?x?[0-9a-f]{0,6};?|\]\]>|-->|ä| ){0,30}"#
    ) {
        let _ = parse_document(text.as_bytes());
    }
}
