//! The number of a change in the headers of requests and answers: an answer says which change the request
//! made, and a read may ask for what is no older than a change, wherever that was made.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use sso_proto::{AT_LEAST_CHANGE_HEADER, CHANGE_HEADER, Reason};

use super::meters::Row;
use crate::{access::Effect, error::Error};

/// The change that a request asks for; none is change 0.
///
/// # Errors
/// `INVALID_REQUEST` when it is no number.
pub(super) fn at_least(headers: &HeaderMap) -> Result<u64, Error> {
    let Some(value) = headers.get(AT_LEAST_CHANGE_HEADER) else { return Ok(0) };
    value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
        let message = format!(
            "{AT_LEAST_CHANGE_HEADER} holds no number of a change: send what an answer had in {CHANGE_HEADER}"
        );
        Error::new(Reason::InvalidRequest, message)
    })
}

/// Where the number of a change is noted; nowhere for what changes nothing.
pub(super) fn note_for(row: Option<Row>) -> Option<Arc<AtomicU64>> {
    let changes = row.is_some_and(|(_, method)| method.action.effect() == Effect::Change);
    changes.then(Arc::default)
}

/// Puts the number of the change that was made, if one was, into the headers of the answer.
pub(super) fn answer_with(headers: &mut HeaderMap, note: Option<&AtomicU64>) {
    let number = note.map_or(0, |note| note.load(Ordering::Relaxed));
    if number > 0 {
        headers.insert(HeaderName::from_static(CHANGE_HEADER), HeaderValue::from(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::numbered;

    #[test]
    fn a_read_asks_for_a_change_by_its_number() {
        let asked = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AT_LEAST_CHANGE_HEADER, HeaderValue::from_static(value));
            at_least(&headers).map_err(|error| error.reason)
        };
        assert_eq!(at_least(&HeaderMap::new()).unwrap(), 0);
        assert_eq!(asked("18446744073709551615"), Ok(u64::MAX));
        for bad in ["", "-1", "1.5", "newest", "18446744073709551616"] {
            assert_eq!(asked(bad), Err(Reason::InvalidRequest), "{bad}");
        }
    }

    #[test]
    fn only_what_changes_something_has_a_number() {
        assert!(note_for(numbered("/sso.v1.ConfigStore/Get")).is_none());
        assert!(note_for(None).is_none());
        let note = note_for(numbered("/sso.v1.ConfigStore/Set")).unwrap();
        let mut headers = HeaderMap::new();
        answer_with(&mut headers, Some(&note));
        assert!(headers.is_empty(), "nothing was changed");
        note.store(7, Ordering::Relaxed);
        answer_with(&mut headers, Some(&note));
        assert_eq!(headers[CHANGE_HEADER], "7");
    }
}
