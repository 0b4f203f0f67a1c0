//! The life of the master secret as a model: every order of the steps of masters, servers and
//! database in small configurations, and what must hold after each of them. The states are those
//! of the code.
//!
//! `masters` and `servers` have the rules, numbered as in docs/architecture.md, 'The life of a
//! generation' and 'Who leads'; `system` has the steps, `seen` and `properties` what must hold.
//! Every property is broken once by leaving a rule out, to show that the checker sees it.

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
