//! Whole-system tests with the real programs, and the rules of the house.

#[cfg(test)]
mod access;
#[cfg(test)]
mod application_types;
#[cfg(test)]
mod applications;
#[cfg(test)]
mod asking;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod audit_levels;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod canary;
#[cfg(test)]
mod compat;
#[cfg(test)]
mod config_store;
#[cfg(test)]
mod dev;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod events;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod explain_calls;
#[cfg(test)]
mod host_initiated;
#[cfg(test)]
mod house;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod lookup;
#[cfg(test)]
mod mappings;
#[cfg(test)]
mod master_secret;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod missing_groups;
#[cfg(test)]
mod overload;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod payment_gateway;
#[cfg(test)]
mod python;
#[cfg(test)]
mod read_your_writes;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod renewals;
#[cfg(test)]
mod reseal;
#[cfg(test)]
mod runbooks;
#[cfg(test)]
mod sealed_rows;
#[cfg(test)]
mod sign_on;
#[cfg(test)]
mod sso_commands;
#[cfg(test)]
mod storage;
#[cfg(test)]
mod system_accounts;
#[cfg(test)]
mod tickets;
#[cfg(test)]
mod tls_matrix;
#[cfg(test)]
mod tls_reload;
