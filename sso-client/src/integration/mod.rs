//! For hosts that connect other systems: messages out and in over HTTPS with certificates, with
//! everything that such a host needs in the config store and in mappings.
//!
//! What BizTalk calls it, and what it is here:
//!
//! | BizTalk | here |
//! |---|---|
//! | send port, its adapter's properties | [`SendPort`], a configuration of a config store application |
//! | receive location | [`ReceiveLocation`], likewise |
//! | a host instance restarted after a port was changed | [`Followed`]: nothing is restarted |
//! | message context, `SSOTicket` and `OriginatorSID` | [`MessageContext`], [`SignOn`] |
//! | `ValidateAndRedeemTicket` in the send adapter | [`redeem()`] |
//! | Windows certificate store, certificate by thumbprint | [`CertificateStore`], [`Thumbprint`] |
//! | party resolution by certificate | [`Parties`] |
//! | retry count and interval, suspended messages | [`RetryPlan`], [`Again`] |
//! | HTTP and WCF send adapters with client certificates | [`HttpsClient`] |
//! | HTTP receive adapter that requires client certificates | [`HttpsListener`] |
//!
//! # A host
//!
//! Bills of users go to a payment gateway; its notifications come in. `bills` is the host's outbox: a
//! message stays there until it was delivered, with its context as text.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use axum::{Router, extract::ConnectInfo, http::StatusCode, routing::post};
//! use sso_client::{Client, ConfigurationKey, Profile, integration::*};
//! use tokio_util::sync::CancellationToken;
//!
//! # struct Bill { context: String, id: String, failed: u32 }
//! # fn next_bill() -> Bill { todo!() }
//! # fn paid(_: &Bill) {}
//! # fn later(_: &Bill, _: Option<Duration>) {}
//! # fn suspend(_: &Bill, _: &dyn std::error::Error) {}
//! # async fn host() -> Result<(), Box<dyn std::error::Error>> {
//! let shutdown = CancellationToken::new();
//! let client = Client::connect(&Profile::load(Some("host"))?)?;
//! // Of the host's own settings: its certificates, and whose credentials it sends at all.
//! let store = CertificateStore::open("/etc/payment-host/certificates")?;
//! let allowed = ["PaymentGateway".to_owned()];
//! let key = |identifier| ConfigurationKey::new("PaymentHost.Ports", identifier);
//!
//! // In: notifications of parties that are known by their certificates.
//! let key_of_location = ConfigurationKey::new("PaymentHost.Locations", "Notifications");
//! let locations = Followed::start(
//!     &client, key_of_location, "Notifications", ReceiveLocation::read, shutdown.clone(),
//! ).await?;
//! let key_of_parties = ConfigurationKey::new("PaymentHost.Parties", "All");
//! let parties = Followed::start(
//!     &client, key_of_parties, "All", Parties::read, shutdown.clone(),
//! ).await?;
//! let path = locations.current().path.clone();
//! let listener = HttpsListener::bind(locations, store.clone(), shutdown.clone()).await?;
//! let take = move |ConnectInfo(peer): ConnectInfo<HttpsPeer>, body: String| async move {
//!     match peer.party(&parties.current()) {
//!         Ok(party) => { /* check the signature of `party`, mark the bill as paid, once */
//!             let _ = (party, body);
//!             StatusCode::NO_CONTENT
//!         }
//!         Err(_) => StatusCode::FORBIDDEN,
//!     }
//! };
//! let router = Router::new().route(&path, post(take));
//! let service = router.into_make_service_with_connect_info::<HttpsPeer>();
//! tokio::spawn(async move { axum::serve(listener, service).await });
//!
//! // A message from a user: the ticket that the user handed over, or that was issued for the user's
//! // token, travels in the context with the account it was issued to.
//! let issued = client.tickets().issue(None, None).await?;
//! let context = MessageContext::of(issued)?;
//! let row = context.to_text(); // into the outbox, with the bill
//! # let _ = row;
//!
//! // Out: what is in the outbox, with the credentials of the user whom it travels for.
//! let ports = Followed::start(
//!     &client, key("Bills"), "Bills", SendPort::read, shutdown.clone(),
//! ).await?;
//! let gateway = HttpsClient::open(ports, store, shutdown.clone()).await?;
//! loop {
//!     let bill = next_bill();
//!     let port = gateway.port();
//!     let context = MessageContext::from_text(&bill.context)?;
//!     let redeemed = match redeem(&client, &port, &allowed, &context).await {
//!         Ok(redeemed) => redeemed,
//!         Err(error) if error.again().helps() => {
//!             later(&bill, port.retry.pause(bill.failed + 1));
//!             continue;
//!         }
//!         Err(error) => {
//!             suspend(&bill, &error);
//!             continue;
//!         }
//!     };
//!     let call = Call::post("/bills")
//!         .header("idempotency-key", &bill.id)
//!         .credentials(&redeemed.credentials)
//!         .json(&serde_json::json!({ "bill": bill.id }));
//!     match gateway.send(call).await {
//!         Ok(_) => paid(&bill),
//!         Err(error) if error.again().helps() => {
//!             let pause = error.retry_after().or_else(|| port.retry.pause(bill.failed + 1));
//!             later(&bill, pause);
//!         }
//!         Err(error) => suspend(&bill, &error),
//!     }
//! }
//! # }
//! ```
//!
//! The ports are written like every configuration; each key is documented at [`SendPort`] and
//! [`ReceiveLocation`]:
//!
//! ```sh
//! sso config set PaymentHost.Ports Bills Address=https://pay.example:8443/api \
//!     CertificateThumbprint=3f07…e1 AuthorityFile=pay-ca.crt AffiliateApplication=PaymentGateway RevocationLists=http://pay.example/ca.crl …
//! ```

mod again;
mod call;
mod context;
mod diagnosis;
mod fields;
mod followed;
mod https_client;
mod https_error;
mod https_listener;
mod https_stream;
mod material;
mod parties;
mod receive_location;
mod redeem;
mod retry_plan;
mod send_port;
mod store;
#[cfg(test)]
mod testing;
mod thumbprint;

pub use self::{
    again::Again,
    call::{Answer, Call},
    context::{ContextError, MessageContext, ORIGINATOR_PROPERTY, SignOn, TICKET_PROPERTY},
    fields::{FieldProblem, PortError},
    followed::{FollowError, Followed},
    https_client::HttpsClient,
    https_error::HttpsError,
    https_listener::{HttpsListener, ListenerControl},
    https_stream::{HttpsPeer, HttpsStream},
    material::SetupError,
    parties::{Parties, Party, PartyError},
    receive_location::ReceiveLocation,
    redeem::{RedeemError, redeem},
    retry_plan::RetryPlan,
    send_port::SendPort,
    store::{CertificateStore, StoreError, StoredCertificate},
    thumbprint::{Thumbprint, ThumbprintError},
};
