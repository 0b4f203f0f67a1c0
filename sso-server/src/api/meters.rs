//! Counters and times of requests, found once and used ever after.

use std::{sync::OnceLock, time::Duration};

use metrics::{Counter, Histogram};
use tonic::Code;

use crate::access::{METHODS, Method};

const CODES: usize = 17;

/// A row of the access table and its number.
pub(super) type Row = (usize, &'static Method);

/// What is measured of one method.
#[derive(Default)]
struct Meter {
    /// By code.
    counts: [OnceLock<Counter>; CODES],
    seconds: OnceLock<Histogram>,
}

/// One for each row of the access table, in its order, and one for what stands in no row.
pub(super) struct Meters(Vec<Meter>);

impl Meters {
    pub(super) fn new() -> Self {
        Self((0..=METHODS.len()).map(|_| Meter::default()).collect())
    }

    /// Counts a request for the method that was answered with the code.
    pub(super) fn measure(&self, row: Option<Row>, code: Code, took: Duration) {
        let path = path_of(row);
        let Some(meter) = self.0.get(row.map_or(METHODS.len(), |(number, _)| number)) else {
            return;
        };
        if let Some(count) = meter.counts.get(code as usize) {
            let counter = || {
                let code = word(code);
                metrics::counter!("sso_requests_total", "method" => path, "code" => code)
            };
            count.get_or_init(counter).increment(1);
        }
        let histogram = || metrics::histogram!("sso_request_seconds", "method" => path);
        meter.seconds.get_or_init(histogram).record(took.as_secs_f64());
    }
}

/// The path of a row, or a word for those that have none.
pub(super) fn path_of(row: Option<Row>) -> &'static str {
    row.map_or("unlisted", |(_, row)| row.path)
}

fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}
