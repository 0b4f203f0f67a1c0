use super::*;

const CANARY: &str = "ticket.canary-77f0_A";

fn ann() -> SignOn {
    SignOn::new(SecretText::new(CANARY.into()), r"CORP\ann").unwrap()
}

fn context() -> MessageContext {
    let mut context = MessageContext::new();
    context.set_sign_on(Some(ann()));
    context.promote("BillId", "bill-\"1\"\n").unwrap();
    context
}

#[test]
fn ticket_and_originator_are_copied_together() {
    let mut other = MessageContext::new();
    other.promote("Own", "kept").unwrap();
    context().copy_sign_on_to(&mut other);
    assert_eq!(other.sign_on(), Some(&ann()));
    assert_eq!(other.property("Own"), Some("kept"));
    assert_eq!(other.property("BillId"), None);
    MessageContext::new().copy_sign_on_to(&mut other);
    assert_eq!(other.sign_on(), None, "nobody's message does not keep somebody's ticket");
}

#[test]
fn the_written_form_is_stable() {
    // Expose: compared with what the test wrote.
    let text = context().to_text();
    let expected = r#"{"version":1,"SSOTicket":"ticket.canary-77f0_A","OriginatorSID":"CORP\\ann","properties":{"BillId":"bill-\"1\"\n"}}"#;
    assert_eq!(text.expose(), expected);
    assert_eq!(MessageContext::from_text(expected).unwrap(), context());
    assert_eq!(MessageContext::new().to_text().expose(), r#"{"version":1}"#);
    assert_eq!(MessageContext::from_text(r#"{"version":1}"#).unwrap(), MessageContext::new());
    let through_serde = serde_json::to_string(&context()).unwrap();
    assert_eq!(through_serde, expected);
    assert_eq!(serde_json::from_str::<MessageContext>(&through_serde).unwrap(), context());
}

#[test]
fn half_a_sign_on_is_refused() {
    for text in [
        r#"{"version":1,"SSOTicket":"abc"}"#,
        r#"{"version":1,"OriginatorSID":"CORP\\ann"}"#,
        r#"{"version":1,"SSOTicket":null,"OriginatorSID":"CORP\\ann"}"#,
    ] {
        assert_eq!(MessageContext::from_text(text), Err(ContextError::Half), "{text}");
        assert!(serde_json::from_str::<MessageContext>(text).is_err());
    }
}

#[test]
fn nothing_shows_the_ticket() {
    assert!(!format!("{:?} {:#?}", context(), ann()).contains(CANARY));
    for text in [
        format!("\"{CANARY}\""),
        format!(r#"{{"version":1,"SSOTicket":["{CANARY}"]}}"#),
        format!(r#"{{"version":"{CANARY}"}}"#),
        format!(r#"{{"version":1,"properties":"{CANARY}"}}"#),
        format!(r#"{{"version":1,"{CANARY}":1}}"#),
        format!(r#"{{"version":1,"SSOTicket":"{CANARY} ","OriginatorSID":"CORP\\ann"}}"#),
        format!(r#"{{"version":1,"SSOTicket":"{CANARY}","OriginatorSID":""}}"#),
        format!(r#"{{"version":2,"SSOTicket":"{CANARY}","OriginatorSID":"CORP\\ann"}}"#),
        format!(r#"{{"version":1,"SSOTicket":"{CANARY}"#),
    ] {
        let error = MessageContext::from_text(&text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error}");
    }
}

#[test]
fn the_sign_on_is_no_property() {
    let mut context = context();
    for name in ["SSOTicket", "ssoticket", "OriginatorSID"] {
        assert_eq!(context.promote(name, "x"), Err(ContextError::Reserved));
    }
    let smuggled = r#"{"version":1,"properties":{"SSOTicket":"x"}}"#;
    assert_eq!(MessageContext::from_text(smuggled), Err(ContextError::Reserved));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let ticket = |text: &str| SecretText::new(text.into());
    for text in ["", "a b", "\u{e4}", &"a".repeat(4097)] {
        assert_eq!(SignOn::new(ticket(text), r"CORP\ann"), Err(ContextError::Ticket));
    }
    for originator in ["", "  ", "a\nb", &"a".repeat(1025)] {
        assert_eq!(SignOn::new(ticket("t"), originator), Err(ContextError::Originator));
    }
    let mut context = MessageContext::new();
    assert_eq!(context.promote(" ", "x"), Err(ContextError::Property));
    assert_eq!(context.promote("x", "x".repeat(65537)), Err(ContextError::Property));
    for number in 0..256 {
        context.promote(number.to_string(), "x").unwrap();
    }
    assert_eq!(context.promote("one more", "x"), Err(ContextError::Property));
    context.promote("0", "changed").unwrap();
}
