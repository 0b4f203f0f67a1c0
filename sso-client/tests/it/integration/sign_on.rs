//! From a ticket in a message to credentials.

use sso_client::{
    SecretText,
    integration::{Again, MessageContext, RedeemError, SendPort, SignOn, redeem},
};
use sso_proto::Reason;

use super::Bench;
use crate::fake::{Answer, Fake, sign_on::TICKET};

fn port() -> SendPort {
    let port = Bench::new().port("127.0.0.1:1".parse().unwrap());
    SendPort { application: Some("Mainframe".into()), ..port }
}

fn allowed() -> [String; 1] {
    ["mainframe".to_owned()]
}

fn context(ticket: &str) -> MessageContext {
    let mut context = MessageContext::new();
    let ticket = SecretText::new(ticket.to_owned());
    context.set_sign_on(Some(SignOn::new(ticket, r"DEV\test").unwrap()));
    context
}

#[tokio::test]
async fn the_originator_is_the_sender() {
    let fake = Fake::start().await;
    let issued = fake.client().tickets().issue(None, None).await.unwrap();
    let kept = MessageContext::of(issued).unwrap().to_text();
    // Expose: as an outbox reads it back after a restart.
    let context = MessageContext::from_text(kept.expose()).unwrap();
    let redeemed = redeem(&fake.client(), &port(), &allowed(), &context).await.unwrap();
    assert_eq!(redeemed.credentials.external_user, "X1");
    let asked = fake.state.asked.redeemed.lock().unwrap().take().unwrap();
    assert_eq!(asked.application, "Mainframe");
    assert_eq!(asked.sender.as_deref(), Some(context.sign_on().unwrap().originator()));
    assert_eq!(asked.ticket.unwrap().text, TICKET);
}

#[tokio::test]
async fn refusals_say_whether_trying_again_helps() {
    let fake = Fake::start().await;
    let client = fake.client();
    let error = redeem(&client, &port(), &allowed(), &MessageContext::new()).await.unwrap_err();
    assert!(matches!(error, RedeemError::NoSignOn));
    let none = SendPort { application: None, ..port() };
    let error = redeem(&client, &none, &allowed(), &context(TICKET)).await.unwrap_err();
    assert_eq!(error.again(), Again::AfterRepair, "{error}");
    let other = SendPort { application: Some("Payroll".into()), ..port() };
    let error = redeem(&client, &other, &allowed(), &context(TICKET)).await.unwrap_err();
    assert!(matches!(error, RedeemError::NotAllowed { .. }), "{error}");
    assert_eq!(fake.calls(), 0, "nothing was asked of the server");
    let error = redeem(&client, &port(), &allowed(), &context("other")).await.unwrap_err();
    assert_eq!((error.reason(), error.again()), (Some(Reason::TicketMalformed), Again::Never));
    assert!(error.ticket_is_spent());
    fake.answer(Answer::Refuse(Reason::MasterUnreachable));
    let error = redeem(&client, &port(), &allowed(), &context(TICKET)).await.unwrap_err();
    assert_eq!(error.again(), Again::Later, "{error}");
    fake.cut(1);
    let error = redeem(&fake.client(), &port(), &allowed(), &context(TICKET)).await.unwrap_err();
    assert_eq!(error.again(), Again::Later, "{error}");
}
