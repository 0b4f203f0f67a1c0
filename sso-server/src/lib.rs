//! The SSO server: affiliate applications and their sealed configuration in SQL, served over gRPC.
//!
//! Floors, lowest first; nothing imports upward: `model` and `error`; `storage` and `master`;
//! `access`, `audit` and `vault`; the rules of each noun; `api`; `server`.

pub mod access;
pub mod announce;
pub mod api;
pub mod applications;
pub mod assertion;
pub mod audit;
pub mod audit_trail;
pub mod cache;
pub mod changes;
pub mod config_store;
pub mod error;
pub mod explain;
pub mod gates;
pub mod generations;
pub mod groups;
pub mod host_initiated;
pub mod house;
pub mod identity;
pub mod lookup;
pub mod mappings;
pub mod master;
pub mod model;
pub mod principals;
pub mod reseal;
pub mod sealed_rows;
pub mod server;
pub mod settings;
pub mod storage;
pub mod system;
pub mod tickets;
pub mod vault;
