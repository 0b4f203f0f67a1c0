//! Who comes through the door: what a request shows is taken from it, and made a caller.

use http::{HeaderMap, Request, header::AUTHORIZATION};
use sso_core::{acceptor::Peer, local::LocalPeer};
use sso_proto::{Reason, Refusal};
use uuid::Uuid;

use super::entry::refusal;
use crate::{
    access::Call,
    error::Error,
    house::House,
    identity::{Bearer, Shown},
};

/// What a request shows of who asks. The token in it goes no further: it is taken out of the request,
/// so that no handler and no log sees it.
pub(super) struct Arrival {
    peer: Option<Peer>,
    local: Option<LocalPeer>,
    bearer: Result<Option<String>, Error>,
    path: String,
}

impl Arrival {
    pub(super) fn of<B>(request: &mut Request<B>) -> Self {
        Self {
            peer: request.extensions().get::<Peer>().cloned(),
            local: request.extensions().get::<LocalPeer>().cloned(),
            bearer: take_bearer(request.headers_mut()),
            path: request.uri().path().to_owned(),
        }
    }

    /// Who asks, if the method stands in the table and what is shown stands for an account that still
    /// belongs to whoever had it first.
    pub(super) async fn admit(
        self,
        house: &House,
        listed: bool,
        request_id: Uuid,
    ) -> Result<Call, Refusal> {
        let refused = |error: Error| refusal(error.reason, error.message, request_id);
        let bearer = self.bearer.map_err(refused)?;
        if self.peer.is_none() && self.local.is_none() {
            let why = "nothing is known of the connection";
            return Err(refusal(Reason::NotAuthenticated, why, request_id));
        }
        let shown = Shown {
            certificate: self.peer.as_ref().and_then(|peer| peer.certificate.as_deref()),
            local: self.local.as_ref(),
            bearer: bearer.as_deref().map(Bearer),
        };
        let caller = house.identity.caller(&shown).await.map_err(refused)?;
        if !listed {
            let why = format!("the method {} stands in no row of the access table", self.path);
            return Err(refusal(Reason::MethodNotListed, why, request_id));
        }
        house.principals.confirm(&caller).await.map_err(|error| {
            tracing::warn!(%request_id, caller = %caller.account, detail = error.for_administrators, "not the one who had the name before");
            refused(error)
        })?;
        let loopback = self.peer.as_ref().is_some_and(|peer| peer.addr.ip().is_loopback());
        Ok(Call { caller, request_id, local: loopback || self.local.is_some() })
    }
}

/// The one bearer token of the headers, which have none any more.
fn take_bearer(headers: &mut HeaderMap) -> Result<Option<String>, Error> {
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
