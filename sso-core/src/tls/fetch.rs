//! Fetching revocation lists: only from where the settings say, never from where a certificate says.

use std::{error::Error, time::Duration};

use reqwest::{Client, StatusCode, redirect};
use rustls::ClientConfig;

use super::lists::LIST_MAX;

/// Time for one list.
const FETCH: Duration = Duration::from_secs(10);

/// A client that goes to the addresses it is given alone: no redirects, no proxy.
pub(super) fn client(config: ClientConfig) -> Result<Client, String> {
    Client::builder()
        .tls_backend_preconfigured(config)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(FETCH)
        .build()
        .map_err(|error| in_full(&error))
}

/// What is at `url`, if it is no larger than a list may be.
pub(super) async fn fetch(client: &Client, url: &str) -> Result<Vec<u8>, String> {
    let answer = client.get(url).send().await;
    let mut answer = answer.map_err(|error| in_full(&error.without_url()))?;
    if answer.status() != StatusCode::OK {
        return Err(format!("cannot be fetched: answered with status {}", answer.status()));
    }
    let mut content = Vec::new();
    let too_large = || Err(format!("is larger than {} MiB", LIST_MAX >> 20));
    if answer.content_length().is_some_and(|length| length > LIST_MAX) {
        return too_large();
    }
    while let Some(part) = answer.chunk().await.map_err(|error| in_full(&error.without_url()))? {
        content.extend_from_slice(&part);
        if content.len() as u64 > LIST_MAX {
            return too_large();
        }
    }
    Ok(content)
}

/// The error with everything behind it: the outermost one says next to nothing.
fn in_full(error: &dyn Error) -> String {
    let mut words = format!("cannot be fetched: {error}");
    let mut next = error.source();
    while let Some(error) = next {
        words.push_str(&format!(": {error}"));
        next = error.source();
    }
    words
}
