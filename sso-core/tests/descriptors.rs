//! A process that runs out of file descriptors goes on accepting when it has some again. Alone in its
//! file: the limit is one of the whole process.

#[cfg(test)]
#[expect(dead_code, reason = "few of the certificates are needed here")]
mod pki;

#[cfg(test)]
mod tests {
    use std::{fs::File, time::Duration};

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use sso_core::{
        acceptor::{AcceptLimits, mtls_incoming},
        tls::TlsReloader,
    };
    use tokio::net::{TcpListener, TcpStream};
    use tokio_stream::StreamExt as _;
    use tokio_util::sync::CancellationToken;

    use crate::pki::Pki;

    #[tokio::test]
    async fn lack_of_descriptors_does_not_stop_the_acceptor() {
        let pki = Pki::new();
        let tls = TlsReloader::load(&pki.issue("server")).unwrap();
        let client = sso_core::connector::ClientTls::load(&pki.issue("ann")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut incoming =
            mtls_incoming(listener, tls, AcceptLimits::default(), CancellationToken::new());

        let normal = getrlimit(Resource::Nofile);
        let few = Rlimit { current: Some(64), ..normal };
        setrlimit(Resource::Nofile, few).unwrap();
        let mut held = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            held.push(file);
        }
        // Room for the client's own socket and for no other: the acceptor meets the error.
        drop(held.pop());
        let waiting = TcpStream::connect(addr).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(held);
        drop(waiting);
        setrlimit(Resource::Nofile, normal).unwrap();

        let url = format!("https://{addr}");
        let channel =
            sso_core::connector::connect_channel(&url, client, Default::default()).unwrap();
        let calling = tokio::spawn(async move {
            let request = http::Request::post("/x").body(tonic::body::Body::empty()).unwrap();
            let _ = tower::ServiceExt::oneshot(channel, request).await;
        });
        let accepted = tokio::time::timeout(Duration::from_secs(20), incoming.next()).await;
        assert!(accepted.unwrap().unwrap().is_ok());
        calling.abort();
    }
}
