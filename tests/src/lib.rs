//! What the whole-system tests and the benches share: a throw-away system of the real programs.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends where something is not as it has to be"
)]

pub mod disk;
pub mod echo;
pub mod everywhere;
pub mod history;
pub mod list_server;
pub mod load;
pub mod oidc;
pub mod postgres;
pub mod proxy;
pub mod raw;
pub mod system;

/// Says that something was left out, and why.
///
/// # Panics
/// Where `SSO_REQUIRE_WHAT` is set to 1.
pub fn left_out(what: &str, why: &str) {
    let name = format!("SSO_REQUIRE_{what}");
    #[expect(
        clippy::disallowed_methods,
        reason = "the settings of the tests are in the environment"
    )]
    let required = std::env::var(&name).is_ok_and(|it| it == "1");
    assert!(!required, "{name}=1 is set, but: {why}");
    println!("skipped: {why}");
}
