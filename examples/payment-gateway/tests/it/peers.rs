//! Those who talk to the two programs from outside.

use std::{path::Path, sync::Arc, time::Duration};

use reqwest::StatusCode;
use serde_json::{Value, json};
use sso_core::{
    clock::Clock,
    tls::{Application, TlsReloader, TlsSettings},
};

/// Hands in bills.
#[derive(Clone)]
pub(crate) struct Portal {
    client: reqwest::Client,
    bills: String,
    pub(crate) token: String,
}

impl Portal {
    /// Hands in at this address, for the user of the token.
    pub(crate) fn new(client: reqwest::Client, bills: String, token: String) -> Self {
        Self { client, bills, token }
    }

    /// Hands in a bill for the user of the token. An error: no answer.
    pub(crate) async fn hand_in(
        &self,
        number: &str,
    ) -> Result<(StatusCode, Value), reqwest::Error> {
        let request = self.client.post(&self.bills).bearer_auth(&self.token).body(bill(number));
        Ok(read(request.send().await?).await)
    }

    /// Hands in a bill with a ticket that the user had issued.
    pub(crate) async fn hand_in_with(
        &self,
        number: &str,
        headers: &[(&str, &str)],
    ) -> (StatusCode, Value) {
        let mut request = self.client.post(&self.bills).body(bill(number));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(request.send().await.expect("an answer")).await
    }

    pub(crate) async fn look(&self, number: &str) -> Option<Value> {
        let answer = self.client.get(format!("{}/{number}", self.bills)).send().await.ok()?;
        let (status, value) = read(answer).await;
        (status == StatusCode::OK).then_some(value)
    }
}

/// Says what was paid.
#[derive(Clone)]
pub(crate) struct Bank {
    client: reqwest::Client,
    payments: String,
}

impl Bank {
    pub(crate) fn new(client: reqwest::Client, payments: String) -> Self {
        Self { client, payments }
    }

    pub(crate) async fn pay(&self, number: &str) -> Result<(StatusCode, Value), reqwest::Error> {
        let request = self.client.post(format!("{}/{number}", self.payments));
        Ok(read(request.send().await?).await)
    }

    /// Has the notification posted once more.
    pub(crate) async fn repeat(&self, number: &str) -> Result<(StatusCode, Value), reqwest::Error> {
        let request = self.client.post(format!("{}/{number}/notification", self.payments));
        Ok(read(request.send().await?).await)
    }
}

fn bill(number: &str) -> String {
    let bill = json!({
        "number": number, "amount_minor": 12_990, "currency": "EUR", "payer": "Ann Example",
        "purpose": "Car insurance",
    });
    bill.to_string()
}

pub(crate) async fn read(answer: reqwest::Response) -> (StatusCode, Value) {
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// An HTTPS client that shows the certificate of this name.
pub(crate) fn client(folder: &Path, name: &str) -> reqwest::Client {
    let file = |ending: &str| folder.join(format!("{name}.{ending}"));
    let settings = TlsSettings::new(file("crt"), file("key"), folder.join("ca.crt"));
    let tls: Arc<TlsReloader> =
        TlsReloader::load_for(&settings, Application::Http, Clock::System).expect("certificates");
    reqwest::Client::builder()
        .tls_backend_preconfigured(rustls::ClientConfig::clone(&tls.client_config()))
        .timeout(Duration::from_secs(20))
        .build()
        .expect("a client")
}
