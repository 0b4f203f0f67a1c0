//! Certificates, authorities and lists that change while they are in use.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use sso_client::integration::{Call, Followed, HttpsClient, HttpsError, SendPort};
use sso_core::tls::TlsReason;

use super::{
    Bench, asked,
    pki::{ClientAuth, ServerAuth},
    until,
};

/// Calls without a pause, on a connection that lasts and on new ones.
struct Load {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    callers: Vec<tokio::task::JoinHandle<Vec<HttpsError>>>,
}

impl Load {
    fn start(client: &HttpsClient) -> Self {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let call = |headers: bool| {
            let call = Call::get("/who");
            if headers { call.header("connection", "close") } else { call }
        };
        let callers = [false, true, false, true].map(|closes| {
            let (client, stop, made) = (client.clone(), Arc::clone(&stop), Arc::clone(&made));
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    match client.send(call(closes)).await {
                        Ok(_) => made.fetch_add(1, Ordering::SeqCst),
                        Err(error) => {
                            failed.push(error);
                            0
                        }
                    };
                }
                failed
            })
        });
        Self { stop, made, callers: callers.into() }
    }

    /// So many further calls were answered.
    async fn goes_on(&self, calls: usize) {
        let before = self.made.load(Ordering::SeqCst);
        until("the load goes on", async || self.made.load(Ordering::SeqCst) >= before + calls)
            .await;
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for caller in self.callers {
            let failed = caller.await.unwrap();
            assert!(failed.is_empty(), "{} failed, the first: {}", failed.len(), failed[0]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_certificates_are_replaced() {
    let bench = Bench::new();
    let (locations, set_location) = Followed::settable(bench.location());
    let (control, _) = bench.listen_followed(locations).await;
    let (ports, set_port) = Followed::settable(bench.port(control.local_addr()));
    let client = HttpsClient::open(ports, bench.store(), bench.shutdown.clone()).await.unwrap();
    let load = Load::start(&client);
    for round in 0..10 {
        // In place and beside, the port before the file and after it.
        let name = if round % 2 == 0 { "client".to_owned() } else { format!("client-{round}") };
        let leaf = bench.ca.issue(bench.folder(), &name, &[ClientAuth]);
        load.goes_on(10).await;
        let certificate = Some(leaf.thumbprint.clone());
        set_port(SendPort { certificate, ..bench.port(control.local_addr()) });
        client.reload().await.unwrap();
        let shown = leaf.thumbprint.to_string();
        assert_eq!(asked(&client).await, shown, "round {round}");

        let name = if round % 3 == 0 { "server".to_owned() } else { format!("server-{round}") };
        let leaf = bench.ca.issue(bench.folder(), &name, &[ServerAuth]);
        let mut location = bench.location();
        location.certificate = leaf.thumbprint.clone();
        set_location(location);
        control.reload().await.unwrap();
        let own = control.status().certificates[0].thumbprint_sha256.clone();
        assert_eq!(own, leaf.thumbprint.to_string());
        bench.ca.write_list(&bench.path("ca.crl"), &[], time::Duration::days(2 + round));
        client.reload().await.unwrap();
        control.reload().await.unwrap();
        load.goes_on(10).await;
    }
    load.stop().await;
}

#[tokio::test]
async fn changes_are_noticed_without_being_told() {
    let bench = Bench::new();
    let (control, _) = bench.listen(bench.location()).await;
    let (ports, set_port) = Followed::settable(bench.port(control.local_addr()));
    let client = HttpsClient::open(ports, bench.store(), bench.shutdown.clone()).await.unwrap();
    let old = bench.client.thumbprint.to_string();
    assert_eq!(asked(&client).await, old);

    // The port names what is not there yet.
    let hidden = tempfile::tempdir().unwrap();
    let leaf = bench.ca.issue(hidden.path(), "next", &[ClientAuth]);
    let certificate = Some(leaf.thumbprint.clone());
    set_port(SendPort { certificate, ..bench.port(control.local_addr()) });
    until("the problem is told", async || client.problem().is_some()).await;
    assert!(client.problem().unwrap().contains(leaf.thumbprint.as_str()));
    assert_eq!(asked(&client).await, old, "the old one goes on");

    for file in ["next.key", "next.crt"] {
        std::fs::copy(hidden.path().join(file), bench.path(file)).unwrap();
    }
    let new = leaf.thumbprint.to_string();
    until("the new certificate is shown", async || asked(&client).await == new).await;
    until("the problem is over", async || client.problem().is_none()).await;
}

#[tokio::test]
async fn the_named_certificate_is_shown_whatever_becomes_of_its_file() {
    let bench = Bench::new();
    let (control, _) = bench.listen(bench.location()).await;
    let (ports, set_port) = Followed::settable(bench.port(control.local_addr()));
    let client = HttpsClient::open(ports, bench.store(), bench.shutdown.clone()).await.unwrap();
    let old = bench.client.thumbprint.to_string();

    let leaf = bench.ca.issue(bench.folder(), "client", &[ClientAuth]);
    let error = client.reload().await.unwrap_err().to_string();
    assert!(error.contains(&old) && error.contains(leaf.thumbprint.as_str()), "{error}");
    assert_eq!(asked(&client).await, old);

    // News of authorities is taken all the same.
    bench.ca.write_list(&bench.path("ca.crl"), &[&bench.server], time::Duration::days(1));
    client.reload().await.unwrap_err();
    let error = client.send(Call::get("/who")).await.unwrap_err();
    assert_eq!(error.reason(), Some(TlsReason::CertificateRevoked), "{error}");

    bench.ca.write_list(&bench.path("ca.crl"), &[], time::Duration::days(1));
    let certificate = Some(leaf.thumbprint.clone());
    set_port(SendPort { certificate, ..bench.port(control.local_addr()) });
    client.reload().await.unwrap();
    assert_eq!(asked(&client).await, leaf.thumbprint.to_string());
}

#[tokio::test]
async fn a_server_certificate_replaced_in_place_is_shown_and_complained_about() {
    let bench = Bench::new();
    let (locations, set_location) = Followed::settable(bench.location());
    let (control, _) = bench.listen_followed(locations).await;
    let leaf = bench.ca.issue(bench.folder(), "server", &[ServerAuth]);
    let error = control.reload().await.unwrap_err().to_string();
    assert!(error.contains(bench.server.thumbprint.as_str()), "{error}");
    let shown = control.status().certificates[0].thumbprint_sha256.clone();
    assert_eq!(shown, leaf.thumbprint.to_string());
    let client = bench.client(bench.port(control.local_addr())).await;
    assert!(!asked(&client).await.is_empty());
    let mut location = bench.location();
    location.certificate = leaf.thumbprint;
    set_location(location);
    control.reload().await.unwrap();
    assert_eq!(control.problem(), None);
}

#[tokio::test]
async fn bad_files_are_kept_out() {
    let bench = Bench::new();
    let (control, _) = bench.listen(bench.location()).await;
    let client = bench.client(bench.port(control.local_addr())).await;
    for file in ["client.crt", "client.key", "ca.crt", "ca.crl"] {
        let good = std::fs::read(bench.path(file)).unwrap();
        super::pki::replace(&bench.path(file), b"garbage");
        let error = client.reload().await.unwrap_err().to_string();
        assert!(error.contains(file) || file == "client.crt", "{file}: {error}");
        assert!(!asked(&client).await.is_empty(), "{file}");
        super::pki::replace(&bench.path(file), &good);
        client.reload().await.unwrap();
        assert_eq!(client.problem(), None, "{file}");
    }
}

#[tokio::test]
async fn the_port_is_followed_to_another_address() {
    let bench = Bench::new();
    let (one, served_one) = bench.listen(bench.location()).await;
    let (two, served_two) = bench.listen(bench.location()).await;
    let (ports, set_port) = Followed::settable(bench.port(one.local_addr()));
    let client = HttpsClient::open(ports, bench.store(), bench.shutdown.clone()).await.unwrap();
    asked(&client).await;
    set_port(bench.port(two.local_addr()));
    until("the other one is asked", async || {
        asked(&client).await;
        served_two.count() > 0
    })
    .await;
    assert!(served_one.count() > 0);
}
