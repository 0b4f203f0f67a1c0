//! Client of the Enterprise SSO secret store.
//!
//! Connect, ask, done:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use sso_client::{Client, ConfigurationKey, Profile, ReadMode};
//!
//! let profile = Profile::load(Some("user"))?;
//! let client = Client::connect(&profile)?;
//! let key = ConfigurationKey::new("OrderRouting.Settings", "ConfigProperties");
//! let configuration = client.config_store().get(&key, ReadMode::Runtime).await?;
//! let url = configuration.value("RoutingServiceUrl");
//! # let _ = url; Ok(())
//! # }
//! ```
//!
//! Every call has a deadline ([`Client::with_deadline`]). Reads are repeated when the connection
//! failed before an answer came; writes never are. Errors are sorted by what the caller can do
//! about them ([`ClientError`]). Values are [`SecretText`]: nothing prints them by accident.
//!
//! Hosts that connect other systems over HTTPS with certificates find the rest in [`integration`].
//!
//! The library keeps no plain value longer than the caller does, and reads the environment only in
//! [`Profile::load`] and [`Environment::read`].

mod access;
mod applications;
mod audit;
pub mod certificates;
mod client;
mod config_store;
pub mod development;
mod error;
pub mod integration;
mod lookup;
mod mappings;
mod principals;
mod profile;
mod remembered;
mod retry;
pub mod secret;
mod system;
mod tickets;
mod watch;
pub mod xml;

pub use access::Access;
pub use applications::{ApplicationFilter, Applications};
pub use audit::{Audit, AuditFilter};
pub use client::Client;
pub use config_store::{
    ConfigStore, Configuration, ConfigurationKey, ReadMode, SetMode, SetOptions, SetOutcome, Values,
};
pub use error::{ClientError, Refusal};
pub use lookup::{Credentials, Logon, LogonRequest, Lookup};
pub use mappings::{
    BatchOutcome, CredentialsSet, MappingFilter, MappingKey, MappingSide, Mappings, NewMapping,
};
pub use principals::Principals;
pub use profile::{Environment, Overrides, Profile, ProfileError};
pub use remembered::RememberedFor;
pub use retry::RetryPolicy;
pub use sso_core::secret::SecretText;
pub use sso_proto::v1;
pub use system::System;
pub use tickets::{IssuedTicket, Redeemed, Tickets};
pub use watch::{Change, Watch, WatchTarget};
