//! The life of the master secret as a model: every order of the steps of masters, servers and database
//! in small configurations, and what must hold after each of them. The words are those of the code.
//!
//! `masters` and `servers` have the rules, `system` the steps, `seen` and `properties` what must hold. Each rule
//! that the properties stand on is left out once, to show that the checker sees it.

#[cfg(test)]
mod masters;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod seen;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod system;
#[cfg(test)]
mod tests;
