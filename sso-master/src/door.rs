//! The door of the network: who the settings do not name gets an answer, and nothing of what they send
//! is read.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Extensions, Request, Response};
use sso_proto::{Reason, Refusal};
use tonic::body::Body;

use crate::{distribution, house::House, secret::gate};

const ADMINISTRATION: &str = "/sso.v1.Secret/";
const DISTRIBUTION: &str = "/sso.v1.MasterSecret/";
/// From the head of a request to the head of its answer: longer than anything that is waited for.
const LONGEST: Duration = Duration::from_secs(180);

/// Refuses by the head of a request alone.
#[derive(Clone)]
pub struct DoorLayer(Arc<House>);

impl DoorLayer {
    /// The door of this house.
    #[must_use]
    pub fn new(house: Arc<House>) -> Self {
        Self(house)
    }
}

impl<S> tower::Layer<S> for DoorLayer {
    type Service = Door<S>;

    fn layer(&self, inner: S) -> Door<S> {
        Door { inner, house: Arc::clone(&self.0) }
    }
}

/// The services behind the door.
#[derive(Clone)]
pub struct Door<S> {
    inner: S,
    house: Arc<House>,
}

impl<S, B> tower::Service<Request<B>> for Door<S>
where
    S: tower::Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Err(refusal) = admit(&self.house, request.uri().path(), request.extensions()) {
            return Box::pin(async { Ok(refusal.into_status().into_http()) });
        }
        let answer = tokio::time::timeout(LONGEST, self.inner.call(request));
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| {
                let message = "the request was not complete in time, so it was given up";
                Ok(Refusal::new(Reason::Overloaded, message).into_status().into_http())
            })
        })
    }
}

fn admit(house: &House, path: &str, extensions: &Extensions) -> Result<(), Refusal> {
    if path.starts_with(ADMINISTRATION) {
        gate::admit(&house.settings, extensions, "administration").map(drop)
    } else if path.starts_with(DISTRIBUTION) {
        distribution::admit(house, extensions)
    } else {
        Ok(())
    }
}
