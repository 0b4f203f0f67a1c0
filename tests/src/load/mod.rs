//! The load generator `sso-load`: what the project is measured with. `docs/performance.md` has the method.

pub mod accounting;
pub mod call;
pub mod callgrind;
pub mod drive;
pub mod fill;
pub mod peers;
pub mod report;
pub mod round;
pub mod schedule;
pub mod stand;
pub mod watchers;
pub mod workload;
pub mod yardstick;
