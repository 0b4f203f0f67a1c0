//! Who comes through the door: what a request shows is taken from it, and made a caller.

use std::sync::Arc;

use http::{HeaderMap, header::AUTHORIZATION};
use sso_proto::{Reason, Refusal};
use uuid::Uuid;

use super::{entry::refusal, visit::Connection};
use crate::{
    error::Error,
    identity::{Bearer, Shown},
    model::Caller,
};

/// The token of a request, or why it has none that can be used. It goes no further: it is taken out of the
/// request, so that no handler and no log sees it.
pub(super) type Bearing = Result<Option<String>, Error>;

/// Who asks on a connection that shows nothing but itself, where that is known already and nobody else
/// can have the name by now.
pub(super) fn known(connection: &Connection, bearing: &Bearing) -> Option<Arc<Caller>> {
    if !matches!(bearing, Ok(None)) {
        return None;
    }
    // Names that somebody else may come to have are looked at each time.
    connection.known().filter(|caller| caller.proof.subject().is_none())
}

/// Who asks, if what is shown stands for an account that still belongs to whoever had it first.
/// `listed`: the method stands in the table; `path` names it where it does not.
pub(super) async fn admit(
    connection: &Connection,
    bearing: Bearing,
    listed: Result<(), String>,
    request_id: Uuid,
) -> Result<Arc<Caller>, Refusal> {
    let refused = |error: Error| refusal(error.reason, error.message, request_id);
    let house = &connection.door.house;
    let bearer = bearing.map_err(refused)?;
    let caller = match connection.known().filter(|_| bearer.is_none()) {
        Some(caller) => caller,
        None => {
            let shown = Shown {
                certificate: connection.peer.as_ref().and_then(|peer| peer.certificate.as_deref()),
                local: connection.local.as_ref(),
                bearer: bearer.as_deref().map(Bearer),
            };
            let generation = house.identity.generation();
            let caller = house.identity.caller(&shown).await.map_err(refused)?;
            if bearer.is_none() {
                connection.know(generation, &caller);
            }
            caller
        }
    };
    if let Err(path) = listed {
        let why = format!("the method {path} stands in no row of the access table");
        return Err(refusal(Reason::MethodNotListed, why, request_id));
    }
    house.principals.confirm(&caller).await.map_err(|error| {
        tracing::warn!(%request_id, caller = %caller.account, detail = error.for_administrators, "not the one who had the name before");
        refused(error)
    })?;
    Ok(caller)
}

/// The one bearer token of the headers, which have none any more.
pub(super) fn take_bearer(headers: &mut HeaderMap) -> Bearing {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let found = match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(Error::new(
            Reason::IdentityAmbiguous,
            "the request has several authorization headers: one is enough",
        )),
        (Some(value), None) => value.to_str().ok().and_then(bearer).map(Some).ok_or_else(|| {
            let why = "the authorization header holds no bearer token: write `Bearer TOKEN`";
            Error::new(Reason::TokenRefused, why)
        }),
    };
    headers.remove(AUTHORIZATION);
    found
}

fn bearer(value: &str) -> Option<String> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_start_matches(' ');
    let sound = !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || c == ',');
    (sound && scheme.eq_ignore_ascii_case("bearer")).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn taken(values: &[&'static str]) -> Result<Option<String>, Reason> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        let taken = take_bearer(&mut headers).map_err(|error| error.reason);
        assert!(!headers.contains_key(AUTHORIZATION), "it stays where handlers see it");
        taken
    }

    #[test]
    fn one_bearer_token_and_no_other_way() {
        assert_eq!(taken(&[]), Ok(None));
        for good in ["Bearer a.b.c", "bearer a.b.c", "BEARER  a.b.c"] {
            assert_eq!(taken(&[good]), Ok(Some("a.b.c".to_owned())), "{good}");
        }
        for bad in
            ["Basic YTpi", "Bearer", "Bearer ", "a.b.c", "Bearer a b", "Bearer a, Bearer b", ""]
        {
            assert_eq!(taken(&[bad]), Err(Reason::TokenRefused), "{bad}");
        }
        assert_eq!(taken(&["Bearer a", "Bearer a"]), Err(Reason::IdentityAmbiguous));
    }
}
